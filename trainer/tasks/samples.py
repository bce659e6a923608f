"""Held-out prompts, answered before and after training.

Turns weights into samples for the screen, the trackers and the report. What was
answered before is read back when a run goes on, never answered again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from etils import epath

from trainer.data.evaluation import EvaluationSet
from trainer.distribution.exchange import from_primary
from trainer.tasks.evaluator import Answerer, Weights
from trainer.tasks.session import Session
from trainer.tracking import Sample, read_events, read_samples


class Samples:
    """The same few prompts at the beginning and at the end of a run."""

    def __init__(self, session: Session, held_out: EvaluationSet | None) -> None:
        self._count = session.config.trainer.sample_prompts if held_out else 0
        self._held_out = held_out
        self._answerer = None
        if self._count:
            self._answerer = Answerer(
                session,
                session.config.generate,
                is_chat=held_out.prompts_are_chat,
            )

    def before(self, weights: Weights) -> list[Sample]:
        """Return the answers of weights that are not trained yet."""
        if not self._count:
            return []
        prompts = self._held_out.prompts(self._count)
        answers = self._answerer(weights, [prompt for prompt, _ in prompts])
        return [
            Sample(prompt=prompt, reference=reference, before=answer)
            for (prompt, reference), answer in zip(prompts, answers, strict=True)
        ]

    def after(self, weights: Weights, before: Sequence[Sample]) -> list[Sample]:
        """Return the samples with the answers of trained weights added.

        A run that answered at its beginning may have been told to answer no more.
        """
        if self._answerer is None:
            return []
        answers = self._answerer(weights, [sample.prompt for sample in before])
        return [
            dataclasses.replace(sample, after=answer)
            for sample, answer in zip(before, answers, strict=True)
        ]


def samples_so_far(directory: epath.PathLike) -> list[Sample]:
    """Return what an earlier start of the run answered, alike in all processes."""

    def read() -> list[dict[str, object]]:
        return [dataclasses.asdict(s) for s in read_samples(read_events(directory))]

    return [Sample(**facts) for facts in from_primary("the samples", read)]
