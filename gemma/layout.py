"""How every variable of a Gemma model is split over a mesh of devices.

Turns a mesh and the model's dimensions into one rule for each kind of variable:
KerasHub's specs wherever they divide, and where they do not (a lone key/value head on
eight chips) the axis moves to another dim of the same variable, or the dim stays
whole. Adapters follow their kernel's heads or inputs, where KerasHub leaves them whole.
Knows no values: a layout costs nothing.
"""

from __future__ import annotations

import dataclasses
import math
import re

import keras

from gemma.backend import select_jax
from gemma.config import GemmaConfig

select_jax()

Spec = tuple[str | None, ...]

_BLOCK = r"(.*/)?decoder_block_\d+/"
_END = "$"  # older Keras searches instead of matching whole paths


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of variable: the paths it covers and its dims' wishes.

    `wish` names the axis that each dim would be split over, as `model` or `batch`;
    dims beyond its end stay whole.
    """

    pattern: str
    wish: Spec


def _projection_rules(name: str, kernel: Spec) -> list[Rule]:
    """Rules of a kernel and its adapter.

    A follows the kernel's heads (or, when shared by all heads, splits its inputs the
    same way); B is at most rank x feed-forward width and stays whole.
    """
    path = f"^{_BLOCK}(attention/)?{name}/"
    factor_a = ("model",) if kernel[0] == "model" else (None,)
    return [
        Rule(f"{path}kernel{_END}", kernel),
        Rule(f"{path}lora_kernel_a{_END}", factor_a),
        Rule(f"{path}lora_kernel_b{_END}", (None,)),
    ]


RULES: tuple[Rule, ...] = (
    Rule(rf"^(.*/)?token_embedding/embeddings{_END}", ("model", "batch")),
    *_projection_rules("query", ("model", "batch", None)),
    *_projection_rules("(key|value)", ("model", "batch", None)),
    *_projection_rules("attention_output", ("model", None, "batch")),
    *_projection_rules("ffw_gating", ("batch", "model")),
    *_projection_rules("ffw_gating_2", ("batch", "model")),
    *_projection_rules("ffw_linear", ("model", "batch")),
    Rule(rf"^(.*/)?(.*_norm|final_normalization)/scale{_END}", (None,)),
)


class LearningLayoutMap(keras.distribution.LayoutMap):
    """A layout map that fits its rules to the model which is built under it.

    Args:
        device_mesh: Mesh to lay out on.
        model_axis: Name of the mesh axis that plays `model` in the rules.
        batch_axis: Name of the mesh axis that plays `batch`.
    """

    def __init__(
        self,
        device_mesh: keras.distribution.DeviceMesh,
        model_axis: str,
        batch_axis: str,
    ) -> None:
        super().__init__(device_mesh)
        self.axes = {"model": model_axis, "batch": batch_axis}
        for rule in RULES:
            self[rule.pattern] = self._named(rule.wish)

    def learn(self, config: GemmaConfig) -> None:
        """Fit every rule to `config`, so that each split divides its dim."""
        sizes = dict(
            zip(self.device_mesh.axis_names, self.device_mesh.shape, strict=True)
        )
        axis_sizes = {role: sizes[name] for role, name in self.axes.items()}
        for rule in RULES:
            spec = fit(rule.wish, _rule_shape(rule, config), axis_sizes)
            del self[rule.pattern]
            self[rule.pattern] = self._named(spec)

    def _named(self, spec: Spec) -> Spec:
        return tuple(None if role is None else self.axes[role] for role in spec)


def gemma_layout_map(
    device_mesh: keras.distribution.DeviceMesh,
    model_axis: str = "model",
    batch_axis: str = "batch",
    *,
    config: GemmaConfig | None = None,
) -> LearningLayoutMap:
    """Build the layout map of a Gemma model on `device_mesh`.

    Raises:
        ValueError: `device_mesh` is no mesh, or lacks one of the two axes.
    """
    if not isinstance(device_mesh, keras.distribution.DeviceMesh):
        raise ValueError(
            "device_mesh must be a keras.distribution.DeviceMesh, received "
            f"{device_mesh!r} of type {type(device_mesh).__name__}"
        )
    for argument, axis in (
        ("model_parallel_dim_name", model_axis),
        ("data_parallel_dim_name", batch_axis),
    ):
        if axis not in device_mesh.axis_names:
            raise ValueError(
                f"{argument} must name an axis of the mesh, one of "
                f"{tuple(device_mesh.axis_names)}, received {axis!r}"
            )
    layout_map = LearningLayoutMap(device_mesh, model_axis, batch_axis)
    if config is not None:
        layout_map.learn(config)
    return layout_map


def fit(wish: Spec, shape: tuple[int, ...], axis_sizes: dict[str, int]) -> Spec:
    """Return the wish where it divides `shape`; move or drop axes where it does not.

    An axis that does not divide its dim moves to the last free dim that it divides.

    Args:
        wish: Axis that each of the leading dims would be split over.
        shape: Dims of the variable.
        axis_sizes: Devices along each axis.
    """
    spec: list[str | None] = [None] * len(shape)
    homeless = []
    for dim, axis in enumerate(wish):
        if axis is None:
            continue
        if shape[dim] % axis_sizes[axis] == 0:
            spec[dim] = axis
        else:
            homeless.append(axis)
    for axis in homeless:
        for dim in reversed(range(len(shape))):
            if spec[dim] is None and shape[dim] % axis_sizes[axis] == 0:
                spec[dim] = axis
                break
    return tuple(spec)


def matching_rules(path: str) -> list[Rule]:
    """Return the rules that cover a variable's path; a sound table has exactly one."""
    return [rule for rule in RULES if re.search(rule.pattern, path)]


def _rule_shape(rule: Rule, config: GemmaConfig) -> tuple[int, ...]:
    """Return the dims that a rule's splits must divide, for the layers of `config`."""
    kernels = config.parameter_shapes()
    is_kernel = rule.pattern.endswith(("kernel$", "embeddings$", "scale$"))
    pattern = rule.pattern if is_kernel else _ADAPTER.sub("/kernel$", rule.pattern)
    shape = next(s for path, s in kernels.items() if re.search(pattern, path))
    if is_kernel:
        return shape
    # A begins with the heads, or with the hidden dim when all heads share it
    return (math.gcd(shape[0], shape[1]) if len(shape) == 3 else shape[0],)


_ADAPTER = re.compile(r"/lora_kernel_[ab]\$$")
