"""Fits the rules to the dimensions of a model and the axes of a mesh.

Turns wishes into splits that divide: KerasHub's specs wherever they do, and where they
do not (a lone key/value head on eight chips) the assignment of axes to dims that uses
the most devices. It refuses to know Keras and devices.

A dim is split over one axis at most: Keras's `TensorLayout` takes no tuple of axes for
a dim (3.15 raises "Invalid axis names"; a test pins it).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import get_args

from gemma.adapters import factor_shapes
from gemma.config import GemmaConfig
from gemma.layout.rules import Spec, rule_of
from gemma.lora import PROJECTIONS, Factorisation, LoraSettings
from gemma.quantized.grid import QUANTIZATIONS, Shape, quantized_shapes
from gemma.quantized.names import block_axis, is_quantizable, part_paths

LARGE_BYTES = 1_000_000
"""From here on a variable is split over as many devices as its dims allow."""

FACTOR_BYTES = 4  # adapters are float32 whatever the base

AxisSizes = Mapping[str, int]
"""Devices along `batch` and along `model`."""


def fit_rules(
    config: GemmaConfig, axis_sizes: AxisSizes, lora: LoraSettings | None = None
) -> dict[str, Spec]:
    """Return the spec of every rule by its pattern.

    Args:
        config: Dimensions of the model.
        axis_sizes: Devices along each axis.
        lora: Form and rank of the adapters. Without it their rules hold for every
            rank and either form, and split none over more than one axis.
    """
    one_layer = dataclasses.replace(config, num_layers=1)
    specs = {}
    weights = one_layer.parameter_shapes()
    for path, shape in (weights | _possible_parts(weights)).items():
        rule = rule_of(path)
        specs[rule.pattern] = fit(rule.wish, shape, axis_sizes)
    for path, shapes in _possible_factors(one_layer, lora).items():
        rule = rule_of(path)
        is_large = math.prod(shapes[0]) * FACTOR_BYTES >= LARGE_BYTES
        specs[rule.pattern] = (
            fit(rule.wish, shapes[0], axis_sizes, axes=tuple(axis_sizes))
            if lora and is_large
            else _keep_divisors(rule.wish, shapes, axis_sizes)
        )
    return specs


def fit(
    wish: Spec,
    shape: tuple[int, ...],
    axis_sizes: AxisSizes,
    *,
    axes: Sequence[str] | None = None,
) -> Spec:
    """Assign axes to dims that they divide, over as many devices as possible.

    Of the assignments with the most devices, the one that keeps most of the wish;
    an axis that must move goes to the last dim that it divides, since the first is
    where heads and inputs are.

    Args:
        wish: Axis that each of the leading dims would be split over.
        shape: Dims of the variable.
        axis_sizes: Devices along each axis.
        axes: Those that shall find a dim; those of the wish by default.
    """
    wished = {axis: dim for dim, axis in enumerate(wish) if axis is not None}
    more = [a for a in axes or () if a not in wished and axis_sizes[a] > 1]
    placed = [*wished, *more]
    choices = [
        [-1, *(d for d, size in enumerate(shape) if size % axis_sizes[axis] == 0)]
        for axis in placed
    ]

    def merit(dims: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
        pairs = list(zip(placed, dims, strict=True))
        count = math.prod(axis_sizes[axis] for axis, dim in pairs if dim >= 0)
        return count, sum(wished.get(axis) == dim for axis, dim in pairs), dims

    distinct = (
        dims
        for dims in itertools.product(*choices)
        if len({d for d in dims if d >= 0}) == sum(d >= 0 for d in dims)
    )
    best = max(distinct, key=merit)
    axis_of = {dim: axis for axis, dim in zip(placed, best, strict=True)}
    return tuple(axis_of.get(dim) for dim in range(len(shape)))


def devices_of(spec: Spec, axis_sizes: AxisSizes) -> int:
    """Return over how many devices a spec splits a variable."""
    return math.prod(axis_sizes[axis] for axis in spec if axis is not None)


def most_devices(shape: tuple[int, ...], axis_sizes: AxisSizes) -> int:
    """Return over how many devices dims can be split, one axis a dim."""
    return devices_of(fit((), shape, axis_sizes, axes=tuple(axis_sizes)), axis_sizes)


def _keep_divisors(
    wish: Spec, shapes: Sequence[tuple[int, ...]], axis_sizes: AxisSizes
) -> Spec:
    """Return the wish without the axes that do not divide their dim of every shape."""
    return tuple(
        axis if axis and all(s[dim] % axis_sizes[axis] == 0 for s in shapes) else None
        for dim, axis in enumerate(wish)
    )


def _possible_parts(weights: Mapping[str, Shape]) -> dict[str, Shape]:
    """Map every path that a part of a quantized weight can have to its shape."""
    found: dict[str, Shape] = {}
    for path, shape in weights.items():
        if is_quantizable(path, shape):
            for quantization in QUANTIZATIONS:
                shapes = quantized_shapes(shape, quantization, block_axis(path))
                found |= zip(part_paths(path, quantization), shapes, strict=True)
    return found


def _possible_factors(
    config: GemmaConfig, lora: LoraSettings | None
) -> dict[str, list[tuple[int, ...]]]:
    """Map every path that a factor can have to its shape, or to that of each form."""
    forms = [lora.factorisation] if lora else get_args(Factorisation)
    found: dict[str, list[tuple[int, ...]]] = {}
    for form in forms:
        factors = factor_shapes(
            config,
            rank=lora.rank if lora else 1,
            targets=PROJECTIONS,
            factorisation=form,
        )
        for path, shape in factors.items():
            found.setdefault(path, []).append(shape)
    return found
