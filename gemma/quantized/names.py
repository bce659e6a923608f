"""Which variables of a model are quantized, and what their parts are called.

Turns the path of a weight into the paths of its integers and scales, and back:
`.../query/kernel` becomes `.../query/kernel_int4` and `.../query/kernel_scale`. The
integers have a name of their own, so that nothing takes them for the weight. It
refuses to know values.
"""

from __future__ import annotations

from typing import Literal

from gemma.quantized.grid import QUANTIZATIONS, Quantization, Shape

Part = Literal["values", "scales"]

BLOCK_AXES = {"kernel": -2, "embeddings": -1}
"""Name of a quantized variable -> dim that its blocks run along, a summed one."""

_SCALE = "_scale"


def is_quantizable(path: str, shape: Shape) -> bool:
    """Return whether a weight has integers and scales when its model is quantized."""
    name = path.rsplit("/", 1)[1]
    return name in BLOCK_AXES and shape[BLOCK_AXES[name]] % 2 == 0


def part_paths(path: str, quantization: Quantization) -> tuple[str, ...]:
    """Return the paths of a weight's integers and scales; norms keep their own."""
    if path.rsplit("/", 1)[1] not in BLOCK_AXES:
        return (path,)
    return (f"{path}_{quantization}", path + _SCALE)


def weight_path(path: str) -> tuple[str, Part | None]:
    """Return the weight that a variable is a part of, and which part; None: whole."""
    for name in BLOCK_AXES:
        if path.endswith(f"/{name}{_SCALE}"):
            return path.removesuffix(_SCALE), "scales"
        for quantization in QUANTIZATIONS:
            if path.endswith(f"/{name}_{quantization}"):
                return path.removesuffix(f"_{quantization}"), "values"
    return path, None


def block_axis(path: str) -> int:
    """Return the dim that the blocks of a quantized weight run along."""
    return BLOCK_AXES[path.rsplit("/", 1)[1]]
