"""What a set of adapters is: rank, scale, targets, form and shapes, without arrays."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable
from typing import Literal

Factorisation = Literal["keras", "shared"]

PROJECTIONS = (
    "query",
    "key",
    "value",
    "attention_output",
    "ffw_gating",
    "ffw_gating_2",
    "ffw_linear",
)
"""Names of a block's projections, which adapters can target."""

DEFAULT_TARGETS = ("query", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Rank, alpha, targets and factorisation; adapters are scaled by alpha / rank."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    factorisation: Factorisation = "keras"
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        """Factor on the product of the factors."""
        return self.alpha / self.rank


def lora_settings(
    rank: int,
    *,
    alpha: float | None = None,
    targets: Iterable[str] | None = None,
    factorisation: Factorisation = "keras",
    dropout: float = 0.0,
) -> LoraSettings:
    """Check and complete the settings; alpha defaults to rank.

    Raises:
        ValueError: rank < 1, an impossible alpha or dropout, an unknown form, no
            pattern, or one that matches no projection.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, received {rank}")
    alpha = float(rank if alpha is None else alpha)
    if not 0.0 < alpha < math.inf:
        raise ValueError(f"alpha must be positive and finite, received {alpha}")
    if factorisation not in ("keras", "shared"):
        raise ValueError(
            f"factorisation must be 'keras' or 'shared', received {factorisation!r}"
        )
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must lie in [0, 1), received {dropout!r}")
    return LoraSettings(
        rank=rank,
        alpha=alpha,
        targets=match_targets(DEFAULT_TARGETS if targets is None else targets),
        factorisation=factorisation,
        dropout=dropout,
    )


def pair_shapes(
    kernel: tuple[int, ...], rank: int, *, shared: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of A and B for a kernel's shape.

    `shared` is for kernels (heads, hidden, head_dim) of query, key and value. The
    others, `attention_output` (heads, head_dim, hidden) among them, sum over all
    their input dims: their A is rank r over all heads by nature.
    """
    if shared:
        heads, hidden, head_dim = kernel
        return (hidden, rank), (rank, heads, head_dim)
    return (*kernel[:-1], rank), (rank, kernel[-1])


def match_targets(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the projections that fnmatch patterns select, in a block's order.

    A pattern is matched with names such as `query`, never with paths: every block
    gets the same adapters, since the arrays of all blocks are stacked.

    Raises:
        ValueError: There is no pattern, or one selects nothing.
    """
    selected: set[str] = set()
    for pattern in patterns:
        matches = fnmatch.filter(PROJECTIONS, pattern)
        if not matches:
            raise ValueError(
                f"targets must match one of {', '.join(PROJECTIONS)}; "
                f"received {pattern!r}"
            )
        selected.update(matches)
    if not selected:
        raise ValueError("targets must name a projection or more, received none")
    return tuple(name for name in PROJECTIONS if name in selected)
