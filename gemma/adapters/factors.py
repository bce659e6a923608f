"""The arithmetic between our factors and those that KerasHub's file can hold.

Turns factors that are scaled by alpha / rank, or share one A among heads, into factors
whose plain product is the same, and back. It refuses to know files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gemma.config import HEADS_FIRST, GemmaConfig
from gemma.lora import Factorisation, pair_shapes

FACTOR_A = "lora_kernel_a"
FACTOR_B = "lora_kernel_b"


def factor_shapes(
    config: GemmaConfig,
    *,
    rank: int,
    targets: Sequence[str],
    factorisation: Factorisation,
) -> dict[str, tuple[int, ...]]:
    """Map the variable path of every factor to its shape, block by block.

    Under `keras`, A is (heads, hidden_dim, rank) and B (rank, head_dim), as in
    Keras; under `shared`, A is (hidden_dim, rank) and B (rank, heads, head_dim).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path, kernel in config.parameter_shapes().items():
        layer, _, variable = path.rpartition("/")
        if variable != "kernel" or layer.rsplit("/", 1)[-1] not in targets:
            continue
        a, b = pair_shapes(kernel, rank, shared=is_shared(layer, factorisation))
        shapes[f"{layer}/{FACTOR_A}"], shapes[f"{layer}/{FACTOR_B}"] = a, b
    return shapes


def largest_rank(
    config: GemmaConfig, *, targets: Sequence[str], factorisation: Factorisation
) -> int:
    """Return the rank above which an adapter has more than its kernel's own rank."""
    shapes = factor_shapes(config, rank=1, targets=targets, factorisation=factorisation)
    widths = [_width(path, shape) for path, shape in shapes.items()]
    return min(widths)


def _width(path: str, shape: tuple[int, ...]) -> int:
    """Return how many numbers a factor of rank 1 maps from, or to, at a time."""
    layer, _, factor = path.rpartition("/")
    if factor == FACTOR_B:
        return math.prod(shape[1:])
    has_heads_first = layer.rsplit("/", 1)[-1] in HEADS_FIRST
    return shape[-2] if has_heads_first else math.prod(shape[:-1])


def is_shared(layer: str, factorisation: Factorisation) -> bool:
    """Return whether the heads of `layer` share one A."""
    return factorisation == "shared" and layer.rsplit("/", 1)[-1] in HEADS_FIRST


def stored_rank(
    config: GemmaConfig,
    *,
    rank: int,
    targets: Sequence[str],
    factorisation: Factorisation,
) -> int:
    """Return the one rank that KerasHub gives to every layer of a file."""
    heads = {
        "query": config.num_query_heads,
        "key": config.num_key_value_heads,
        "value": config.num_key_value_heads,
    }
    shared = [heads[name] for name in targets if is_shared(name, factorisation)]
    return rank * max(shared, default=1)


def scale_factor(values: np.ndarray, factor: float) -> np.ndarray:
    """Multiply in float64 and round once to float32."""
    return (values.astype(np.float64) * factor).astype(np.float32)


def pad_factor(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Append zeros, which add nothing to the product of the factors."""
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, size - values.shape[axis])
    return np.pad(values, widths)


def expand_shared(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each head a block of the rank of its own; the product stays the same.

    (hidden, rank), (rank, heads, head_dim)
        -> (heads, hidden, heads * rank), (heads * rank, head_dim)
    """
    (hidden, rank), heads = a.shape, b.shape[1]
    wide = np.zeros((heads, hidden, heads * rank), a.dtype)
    for head in range(heads):
        wide[head, :, head * rank : (head + 1) * rank] = a
    return wide, b.transpose(1, 0, 2).reshape(heads * rank, -1)


def contract_shared(
    a: np.ndarray, b: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Undo `expand_shared` and padding; None where A is not one A for every head."""
    heads = a.shape[0]
    narrow_a = a[0, :, :rank]
    narrow_b = b[: heads * rank].reshape(heads, rank, -1).transpose(1, 0, 2)
    wide, _ = expand_shared(narrow_a, narrow_b)
    if not np.array_equal(pad_factor(wide, -1, a.shape[-1]), a):
        return None
    return np.ascontiguousarray(narrow_a), np.ascontiguousarray(narrow_b)
