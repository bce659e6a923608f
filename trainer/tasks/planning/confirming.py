"""The largest size that a compiler takes, from the one that the search found.

Turns a found size into one that compiled and fits, correcting the estimate by each
refusal. It refuses to know what a size is of and how it is compiled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from trainer.tasks.planning.compiling import Compilation
from trainer.tasks.planning.search import Search

CONFIRMATIONS = 3
"""Times that a found size is compiled, each time a smaller one where it did not fit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of what the largest is looked for: microbatches or sequences.

    Attributes:
        unit: Sizes are multiples of it.
        largest: Finds the largest by a search's estimate.
        state: Bytes between steps, which no size changes.
        estimated: All estimated bytes under a size.
        compile: Compiles a step of a size.
    """

    unit: int
    largest: Callable[[Search], int]
    state: int
    estimated: Callable[[int], int]
    compile: Callable[[int], Compilation]


def confirmed(sizes: Sizes, search: Search, *, asked: int) -> tuple[int, bool]:
    """Return the largest size, and whether the compiler took it.

    Args:
        sizes: What is looked for.
        search: The estimate as far as it is corrected.
        asked: A size that compiled and fits; 0 where none is known.
    """
    found = sizes.largest(search)
    for _ in range(CONFIRMATIONS):
        if found <= asked:
            return asked, asked > 0
        compilation = sizes.compile(found)
        total = compilation.total
        if compilation.fits and total is not None and total <= search.limit:
            return found, True
        if total is None:  # refused without a number: assume that a tenth is missing
            total = round(1.1 * search.limit)
        ratio = (total - sizes.state) / (sizes.estimated(found) - sizes.state)
        search = dataclasses.replace(search, work_ratio=ratio)
        found = min(sizes.largest(search), found - 1)
        found -= found % sizes.unit
    return (asked, True) if asked else (found, False)
