"""What `plan.topology` names: a kind of chip and how many there are of it.

Turns `v5e:2x4`, `cpu:8` or `h100:8` into chips, and a topology that is not built into
the nearest one that is. It refuses to know how much memory a chip has and whether one
is here, so that a wrong topology is told before JAX is imported.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Literal

from trainer.config.errors import ConfigError
from trainer.config.mesh_shape import auto_shapes, parse_shape
from trainer.config.schema import RunConfig
from trainer.config.spelling import listing, nearest

Platform = Literal["tpu", "cpu", "gpu"]

_SQUARES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SMALL_CUBES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_EDGES = (4, 8, 12, 16, 20, 24)  # larger ones are built of cubes of 4 x 4 x 4
_MAX_CHIPS = {"v4": 4096, "v5p": 6144}
_MAX_COUNT = 4096
_MOST_ADVISED = 256
_TOPOLOGY = re.compile(r"([a-z0-9-]+)(?::(\d+(?:x\d+)*))?")


def _cubes(most: int) -> tuple[tuple[int, ...], ...]:
    """Return the three-dimensional slices of at most so many chips."""
    edges = itertools.combinations_with_replacement(_EDGES, 3)
    large = [shape for shape in edges if math.prod(shape) <= most]
    return (*_SMALL_CUBES, *sorted(large, key=math.prod))


TPU_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "v5e": _SQUARES,
    "v6e": _SQUARES,
    **{chip: _cubes(most) for chip, most in _MAX_CHIPS.items()},
}
"""Slices of each generation in chips, as Google Cloud rents them.

Source: cloud.google.com/tpu/docs, pages v4, v5e, v5p and v6e.
"""

NVIDIA = ("a100", "a100-80gb", "b200", "h100", "h200", "l4", "l40s")
"""Chips that are planned by estimate."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind.

    Attributes:
        chip: `v5e`, `h100`, `cpu` and the like.
        shape: Chips along each dim of a slice; one number where there are no dims.
        slices: Slices that are joined by the data centre's network.
    """

    chip: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def platform(self) -> Platform:
        """The platform that JAX would name."""
        if self.chip == "cpu":
            return "cpu"
        return "tpu" if self.chip in TPU_SHAPES else "gpu"

    @property
    def devices(self) -> int:
        """Devices of all slices; a chip is one."""
        return self.slices * math.prod(self.shape)

    def __str__(self) -> str:
        slices = f"{self.slices} x " if self.slices > 1 else ""
        return f"{slices}{self.chip}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str, *, slices: int = 1) -> Topology:
    """Turn `v5e:2x4`, `h100:8` or `cpu` into a topology.

    Args:
        text: Kind of chip, and after a colon how many, one of them without.
        slices: How many of these there are.

    Raises:
        ConfigError: There is no such chip, or no slice of this shape; with the nearest.
    """
    found = _TOPOLOGY.fullmatch(text.strip().lower())
    chip = found[1] if found else text.lower().partition(":")[0]
    chips = [*TPU_SHAPES, "cpu", *NVIDIA]
    if found is None or chip not in chips:
        near = chip if chip in chips else nearest(chip, chips) or "v5e"
        raise _no_such(text, f"{listing(chips)}, and how many", f"{near}:8")
    numbers = tuple(int(n) for n in (found[2] or "1").split("x"))
    if chip in TPU_SHAPES:
        return Topology(chip, _slice(text, chip, numbers), slices)
    if len(numbers) != 1 or not 1 <= numbers[0] <= _MAX_COUNT:
        count = min(max(math.prod(numbers), 1), _MAX_COUNT)
        raise _no_such(text, f"{chip}:N, N from 1 to {_MAX_COUNT}", f"{chip}:{count}")
    return Topology(chip, numbers, slices)


def planned_topology(config: RunConfig) -> Topology | None:
    """Return the topology of a configuration; None means this machine's devices.

    Raises:
        ConfigError: There is no such topology.
    """
    slices = config.mesh.slices or 1
    if config.plan.topology is None:
        simulated = config.device.simulated
        return Topology("cpu", (simulated,)) if simulated else None
    text = config.plan.topology
    if text == "cpu" and config.device.simulated:
        text = f"cpu:{config.device.simulated}"
    return parse_topology(text, slices=slices)


def larger_topologies(topology: Topology) -> list[Topology]:
    """Return slices of the same chips with more of them, and up to 256, in order.

    NVIDIA's come in nodes of eight. Several slices are left as they are.
    """
    if topology.slices > 1:
        return []
    shapes = TPU_SHAPES.get(topology.chip) or (
        (8,),
        (16,),
        (32,),
        (64,),
        (128,),
        (256,),
    )
    larger = [Topology(topology.chip, shape) for shape in shapes]
    return [t for t in larger if topology.devices < t.devices <= _MOST_ADVISED]


def check_topology(config: RunConfig) -> None:
    """Refuse a topology that does not exist, or a mesh of other devices than it has.

    Raises:
        ConfigError: With a topology or meshes that would do.
    """
    topology = planned_topology(config)
    if topology is None or config.mesh.shape == "auto":
        return
    batch, model = parse_shape(config.mesh.shape)
    if batch * model != topology.devices:
        meshes = " or ".join(f"mesh={b}x{m}" for b, m in auto_shapes(topology.devices))
        raise ConfigError(
            key="plan.topology",
            expected=f"as many devices as mesh={batch}x{model} has, {batch * model}",
            received=f"{topology}, which has {topology.devices}",
            fix=_with_devices(topology, batch * model) + meshes,
        )


def _slice(text: str, chip: str, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a slice; a lone number is its chips, as in `v5e:8`."""
    shapes = TPU_SHAPES[chip]
    if numbers in shapes:
        return numbers
    near = _nearest_shape(shapes, math.prod(numbers))
    if len(numbers) == 1 and math.prod(near) == numbers[0]:
        return near
    known = listing(["x".join(map(str, shape)) for shape in shapes], limit=12)
    raise _no_such(
        text, f"a slice of {chip}: {known}", f"{chip}:{'x'.join(map(str, near))}"
    )


def _with_devices(topology: Topology, devices: int) -> str:
    """Return what to type for so many of the same chips, nothing where none has it."""
    each = devices // topology.slices
    near: tuple[int, ...] = (each,)
    if topology.platform == "tpu":
        near = _nearest_shape(TPU_SHAPES[topology.chip], each)
    if math.prod(near) * topology.slices != devices:
        return ""
    return f"plan.topology={topology.chip}:{'x'.join(map(str, near))}, or "


def _nearest_shape(shapes: tuple[tuple[int, ...], ...], chips: int) -> tuple[int, ...]:
    """Return the slice whose number of chips is nearest, the larger one of two."""
    return min(shapes, key=lambda s: (abs(math.prod(s) - chips), -math.prod(s)))


def _no_such(text: str, expected: str, fix: str) -> ConfigError:
    return ConfigError(
        key="plan.topology",
        expected=expected,
        received=text,
        fix=f"plan.topology={fix}",
    )
