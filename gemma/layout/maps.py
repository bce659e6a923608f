"""Keras's layout map of a Gemma model, fitted to the model that is built under it.

Turns a device mesh, and the dimensions once they are known, into the layouts that
`keras.distribution.ModelParallel` asks for by path. It refuses to know which splits are
good (`gemma.layout.rules`) and which are possible (`gemma.layout.fitting`).
"""

from __future__ import annotations

from gemma.backend import select_jax

select_jax()

import keras  # noqa: E402  the backend is chosen first

from gemma.config import GemmaConfig  # noqa: E402
from gemma.layout.fitting import fit_rules  # noqa: E402
from gemma.layout.rules import RULES, Spec  # noqa: E402
from gemma.lora import LoraSettings  # noqa: E402


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

    def learn(self, config: GemmaConfig, lora: LoraSettings | None = None) -> None:
        """Fit every rule to the dimensions, so that each split divides its dim.

        Args:
            config: Dimensions of the model.
            lora: Its adapters, which are split further when they are large.
        """
        sizes = dict(
            zip(self.device_mesh.axis_names, self.device_mesh.shape, strict=True)
        )
        axis_sizes = {role: sizes[name] for role, name in self.axes.items()}
        for pattern, spec in fit_rules(config, axis_sizes, lora).items():
            del self[pattern]
            self[pattern] = self._named(spec)

    def _named(self, spec: Spec) -> Spec:
        return tuple(None if role is None else self.axes[role] for role in spec)


def gemma_layout_map(
    device_mesh: keras.distribution.DeviceMesh,
    model_axis: str = "model",
    batch_axis: str = "batch",
    *,
    config: GemmaConfig | None = None,
    lora: LoraSettings | None = None,
) -> LearningLayoutMap:
    """Build the layout map of a Gemma model on `device_mesh`.

    Args:
        device_mesh: Mesh to lay out on.
        model_axis: Axis that splits heads, vocabulary and feed-forward.
        batch_axis: Axis that splits the other large dim of every weight.
        config: Dimensions to fit the splits to.
        lora: Adapters to fit to; they need `config`.

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
        layout_map.learn(config, lora)
    return layout_map


def teach_layout_map(config: GemmaConfig, lora: LoraSettings | None = None) -> None:
    """Tell the dimensions to our layout map, if a model is being built under one."""
    distribution = keras.distribution.distribution()
    if isinstance(distribution, keras.distribution.ModelParallel):
        layout_map = distribution._layout_map  # Keras 3.15 shows it in no other way
        if isinstance(layout_map, LearningLayoutMap):
            layout_map.learn(config, lora)
