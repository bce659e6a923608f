"""Which path computes attention: the one wished for, or the best that the device has.

Turns a wish, the devices that a program is compiled for and the facts of a model into
a path, or into the reason why that path cannot run there. The devices may be of a
topology that is not here: what JAX runs on is not asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import jax
from jax.sharding import Mesh

Choice = Literal["auto", "reference", "blocked", "splash", "cudnn"]
CHOICES: tuple[str, ...] = get_args(Choice)
_PREFERRED: Mapping[str, tuple[str, ...]] = {
    "tpu": ("splash", "blocked"),
    "gpu": ("cudnn", "blocked"),
    "cpu": ("blocked",),
}
SHORTEST_FOR_SPLASH = 128  # below, a kernel would compute mostly padding


class Target(NamedTuple):
    """What a program is compiled for.

    Attributes:
        platform: `cpu`, `gpu` for NVIDIA's, `tpu`, or what has no kernel here.
        largest_fused_head_dim: Of cuDNN's kernels: 256 from Hopper on, else 128.
    """

    platform: str
    largest_fused_head_dim: int = 128

    @classmethod
    def of_mesh(cls, mesh: Mesh) -> Target:
        """Return the target that the devices of a mesh are."""
        return cls.of_device(mesh.devices.flat[0])

    @classmethod
    def of_device(cls, device: jax.Device) -> Target:
        """Return the target that a device is."""
        if device.platform != "gpu":
            return cls(device.platform)
        major = str(device.compute_capability).split(".")[0]  # AMD's: gfx942
        if not major.isdigit():
            return cls("rocm")
        return cls("gpu", 256 if int(major) >= 9 else 128)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What a path has to express.

    Attributes:
        head_dim: Of a query.
        soft_cap: Bound of the scores, or None.
        dtype: Name of the queries' dtype.
        has_segments: Rows are packed, or some keys are padding.
        length: Of a sequence; None where it is not known yet.
    """

    head_dim: int
    soft_cap: float | None
    dtype: str
    has_segments: bool
    length: int | None = None


class Unfit(ValueError):
    """A path that a device cannot run, or that cannot express a model.

    Attributes:
        choice: The path.
        reason: What it would need, as `needs ...`.
        nearest: A path that works there.
    """

    def __init__(self, choice: str, reason: str, nearest: str) -> None:
        super().__init__(f"attention={choice} {reason}; attention={nearest} works here")
        self.choice, self.reason, self.nearest = choice, reason, nearest


def choose(choice: str, target: Target, facts: Facts) -> str:
    """Return the path to take.

    Raises:
        Unfit: The choice is a path that cannot run there.
        ValueError: There is no such choice.
    """
    if choice not in CHOICES:
        raise ValueError(f"attention must be one of {CHOICES}, received {choice!r}")
    best = _best(target, facts)
    if choice == "auto":
        return best
    if obstacle := _obstacle(choice, target, facts):
        raise Unfit(choice, obstacle, best)
    return choice


def _best(target: Target, facts: Facts) -> str:
    if facts.length is not None and facts.length < SHORTEST_FOR_SPLASH:
        return "blocked"
    paths = _PREFERRED.get(target.platform, ("blocked",))
    return next(path for path in paths if _obstacle(path, target, facts) is None)


def _obstacle(path: str, target: Target, facts: Facts) -> str | None:
    if path == "splash" and target.platform != "tpu":
        return f"needs a TPU and this program is for a {target.platform}"
    return _obstacle_to_cudnn(target, facts) if path == "cudnn" else None


def _obstacle_to_cudnn(target: Target, facts: Facts) -> str | None:
    largest = target.largest_fused_head_dim
    if target.platform != "gpu":
        return f"needs an NVIDIA GPU and this program is for a {target.platform}"
    if facts.soft_cap is not None:
        return f"has no soft cap and this model has one of {facts.soft_cap:g}"
    if facts.has_segments:
        return "keeps no rows or padding of a sequence apart and these have some"
    if facts.dtype not in ("bfloat16", "float16"):
        return f"needs bfloat16 or float16 and this model computes in {facts.dtype}"
    if facts.head_dim % 8 or facts.head_dim > largest:
        return (
            f"needs a head_dim of at most {largest} that 8 divides and this model "
            f"has {facts.head_dim}"
        )
    return None
