"""The largest step that fits, and what would make one fit that does not.

Turns an estimate, a mesh and the memory of a device into the largest microbatch and
sequence, and into changes of the configuration with the bytes that each gives. A
compiled program corrects the estimate; nothing is compiled here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from trainer.config.mesh_shape import auto_shapes
from trainer.model.memory import MemoryPlan

SEQUENCE_STEP = 128  # tokens: kernels compute blocks of so many
_LARGEST_MICROBATCH = 1 << 16


@dataclasses.dataclass(frozen=True)
class Change:
    """Keys to type, and the bytes on each device under them.

    Attributes:
        words: As typed on the command line.
        total: Bytes a device.
        fits: Whether that is enough.
    """

    words: str
    total: int
    fits: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """An estimate with what is known of it.

    Attributes:
        plan: Of the configuration asked for.
        shape: Of its mesh.
        limit: Bytes that a program may use of a device.
        global_batch_size: Sequences of a step.
        slices: Slices over which `batch` runs.
        remats: Choices of `trainer.remat` that may need less, the quickest first.
        others: Steps of their own that keep less for what is trained, by words.
        work_ratio: Bytes that the compiler needs beside the state, per estimated one.
    """

    plan: MemoryPlan
    shape: tuple[int, int]
    limit: int
    global_batch_size: int
    slices: int = 1
    remats: tuple[str, ...] = ("block",)
    others: Mapping[str, MemoryPlan] = dataclasses.field(default_factory=dict)
    work_ratio: float = 1.0

    def total(self, plan: MemoryPlan, shape: tuple[int, int] | None = None) -> int:
        """Return the corrected bytes on each device."""
        found = plan.estimate(shape or self.shape)
        return found.state + round((found.total - found.state) * self.work_ratio)

    def fits(self, plan: MemoryPlan, shape: tuple[int, int] | None = None) -> bool:
        """Return whether a plan fits."""
        return self.total(plan, shape) <= self.limit

    def largest_microbatch(self) -> int:
        """Return the most sequences per forward that fit; 0 where not one does."""
        axis = self.shape[0]
        # a smaller one has several forwards, which add up a second gradient: where the
        # one asked for fits, they may not
        asked = self.plan.microbatch_size if self.fits(self.plan) else 0
        most = _largest(
            lambda n: self.fits(self._with_microbatch(n * axis)),
            _LARGEST_MICROBATCH,
            known=asked // axis,
        )
        return most * axis

    def largest_sequence(self) -> int:
        """Return the most tokens of a sequence that fit; 0 where the fewest do not."""
        asked = self.plan.sequence_length if self.fits(self.plan) else 0
        most = _largest(
            lambda n: self.fits(
                dataclasses.replace(self.plan, sequence_length=n * SEQUENCE_STEP)
            ),
            self.plan.config.max_positions // SEQUENCE_STEP,
            known=asked // SEQUENCE_STEP,
        )
        return max(most * SEQUENCE_STEP, asked)

    def changes(self) -> list[Change]:
        """Return what can be changed alone, by key, and then all of it together."""
        singles = list(self._alone())
        found = [self._change(words, plan, shape) for words, plan, shape in singles]
        if any(change.fits for change in found):
            return found
        return found + list(self._together())

    def _alone(self) -> Iterator[tuple[str, MemoryPlan, tuple[int, int]]]:
        """Yield the best value of each key that needs less than the one given."""
        others = [[(words, plan, self.shape)] for words, plan in self.others.items()]
        for options in (*self._options(self.plan, self.shape), *others):
            better = [o for o in options if self.total(o[1], o[2]) < self._now]
            fitting = [o for o in better if self.fits(o[1], o[2])]
            if fitting:
                yield fitting[0]
            elif better:
                yield min(better, key=lambda o: self.total(o[1], o[2]))

    def _together(self) -> Iterator[Change]:
        """Yield the changes of all keys at once, as few of them as fit."""
        words: list[str] = []
        plan, shape = self.plan, self.shape
        for position in range(len(list(self._options(plan, shape)))):
            options = list(self._options(plan, shape))[position]
            now = self.total(plan, shape)
            better = [o for o in options if self.total(o[1], o[2]) < now]
            if not better:
                continue
            fitting = [o for o in better if self.fits(o[1], o[2])]
            best = min(better, key=lambda o: self.total(o[1], o[2]))
            word, plan, shape = fitting[0] if fitting else best
            words.append(word)
            if self.fits(plan, shape):
                break
        if len(words) > 1:
            yield self._change(" ".join(words), plan, shape)

    def _options(
        self, plan: MemoryPlan, shape: tuple[int, int]
    ) -> Iterator[list[tuple[str, MemoryPlan, tuple[int, int]]]]:
        """Yield for each key the values that may need less, the cheapest first."""
        meshes = [
            s
            for s in auto_shapes(shape[0] * shape[1])
            if plan.microbatch_size % s[0] == 0 and s[0] % self.slices == 0
        ]
        yield [(f"mesh={b}x{m}", plan, (b, m)) for b, m in meshes if (b, m) != shape]
        yield [
            (f"trainer.remat={remat}", dataclasses.replace(plan, remat=remat), shape)
            for remat in self.remats
            if remat != plan.remat
        ]
        yield [
            (
                f"trainer.microbatch_size={size}",
                self._with_microbatch(size, plan),
                shape,
            )
            for size in self._smaller_microbatches(plan, shape)
        ]
        yield self._smaller_weights(plan, shape)

    def _smaller_weights(
        self, plan: MemoryPlan, shape: tuple[int, int]
    ) -> list[tuple[str, MemoryPlan, tuple[int, int]]]:
        """Return the quantizations of a base under adapters that are smaller."""
        if plan.lora is None:
            return []
        bits = ("int8", "int4") if plan.quantize is None else ("int4",)
        return [
            (f"preset.quantize={word}", dataclasses.replace(plan, quantize=word), shape)
            for word in bits
            if word != plan.quantize
        ]

    def _smaller_microbatches(
        self, plan: MemoryPlan, shape: tuple[int, int]
    ) -> list[int]:
        """Return the smaller divisors of the global batch, the largest first."""
        return [
            size
            for size in range(plan.microbatch_size - 1, 0, -1)
            if self.global_batch_size % size == 0 and size % shape[0] == 0
        ]

    def _with_microbatch(self, size: int, plan: MemoryPlan | None = None) -> MemoryPlan:
        plan = plan or self.plan
        several = plan.microbatches > 1 or size < plan.microbatch_size
        return dataclasses.replace(
            plan, microbatch_size=size, microbatches=2 if several else 1
        )

    def _change(self, words: str, plan: MemoryPlan, shape: tuple[int, int]) -> Change:
        total = self.total(plan, shape)
        return Change(words, total, total <= self.limit)

    @property
    def _now(self) -> int:
        return self.total(self.plan)


def _largest(fits: Callable[[int], bool], most: int, *, known: int) -> int:
    """Return the largest number up to `most` that fits, 0 where 1 does not.

    Args:
        fits: Whether a number does.
        most: Where to stop.
        known: One that fits, from which to go up; 0 where none is known.
    """
    low = known or int(fits(1))
    if low == 0:
        return 0
    high = 2 * low
    while high <= most and fits(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
