"""What a run does about steps that the devices skipped, and about ruined weights.

Turns a skipped step into an event with its rows and one line for a person, too many of
them into an older checkpoint, and a state that is not finite into an error instead of a
checkpoint. It refuses to know why a step was skipped: the devices decided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from trainer.checkpoint import Store
from trainer.config.errors import NumericsError
from trainer.config.schema import RunConfig
from trainer.data.sources import RowSet
from trainer.tasks.console import Screen
from trainer.tasks.state import restore_state
from trainer.tracking import Tracker
from trainer.training.progress import Progress, SkippedStep
from trainer.training.step import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipping:
    """Answers to skipped steps, for one run.

    Attributes:
        config: Whether to go back, and how often checkpoints are due.
        rows: Training rows, to say where those of a step are.
        like: Shapes of the state, to restore an older one.
        store: Checkpoints.
        tracker: Gets events.
        screen: Where a person looks.
    """

    config: RunConfig
    rows: RowSet
    like: Mapping[str, jax.ShapeDtypeStruct]
    store: Store
    tracker: Tracker
    screen: Screen

    def tell(self, skipped: SkippedStep) -> None:
        """Record which rows a skipped step had, by place and never by content.

        A run that was killed meets the same batch again: two events with one position
        are one skipped step.
        """
        numbers = dict.fromkeys(skipped.batch.row_numbers)
        places = [self.rows.place(number) for number in numbers]
        reason = "a spike" if skipped.is_spike else "not finite"
        facts = {
            "step": skipped.step,
            "reason": reason,
            "loss": str(skipped.loss),  # JSON has no word for what is not finite
            "grad_norm": str(skipped.grad_norm),
            "skipped_steps": skipped.in_all,
            "position": skipped.batch.position,
            "rows": places,
        }
        self.tracker.event("skipped", facts)
        self.tracker.flush()
        self.screen.line(
            f"step {skipped.step} is skipped: loss {skipped.loss:.4g}, gradient norm "
            f"{skipped.grad_norm:.4g}, {reason}; events.jsonl names its {len(places)} "
            "rows"
        )

    def rewind(
        self, state: TrainState, done: Progress
    ) -> tuple[TrainState, Progress] | None:
        """Return state and progress of an older checkpoint, and delete newer ones.

        It is the newest that a run of this configuration has wherever it was stopped:
        one of those that are due. None where there is none, where the run went back to
        it before, or is not to.

        Args:
            state: What is given up; its memory is freed first.
            done: The progress after which too many steps were skipped.
        """
        if not self.config.trainer.rewind:
            return None
        self.store.wait()
        every = self.config.checkpoint.every_steps
        due = [s for s in self.store.steps() if s < done.step and s % every == 0]
        if not due or due[-1] == done.rewound_to:
            return None
        for array in jax.tree.leaves(state):
            array.delete()
        older, metadata = restore_state(self.store, due[-1], self.like)
        for newer in [step for step in self.store.steps() if step > due[-1]]:
            self.store.forget(newer)
        self.tracker.event("rewound", {"from": done.step, "to": due[-1]})
        self.screen.line(f"going back from step {done.step} to checkpoint {due[-1]}")
        progress = Progress(**metadata["progress"])
        return older, dataclasses.replace(progress, rewound_to=due[-1])


def check_finite(state: TrainState, *, step: int, kept: int | None) -> None:
    """Refuse weights or moments that are not finite, before they are saved.

    The gradient was finite, or the step would have been skipped: the update itself was
    too large for their dtype.

    Args:
        state: What is to be saved.
        step: Updates that made it.
        kept: The newest checkpoint, None before the first.

    Raises:
        NumericsError: There is such a number.
    """
    is_finite = jax.block_until_ready(_is_finite(state))  # on all simulated devices
    if bool(np.asarray(is_finite.addressable_data(0))):
        return
    goes_on = f"checkpoint {kept} is the newest good one" if kept else "none is kept"
    raise NumericsError(
        key="optimizer.learning_rate",
        expected=f"finite weights and moments after step {step}",
        received="an update that left some of them not finite; they are not saved",
        fix=f"a lower optimizer.learning_rate; {goes_on}",
    )


def compile_check(state: TrainState) -> None:
    """Compile what `check_finite` runs, before there is a state to save."""
    _is_finite.lower(state).compile()


@jax.jit
def _is_finite(state: TrainState) -> jax.Array:
    floats = [a for a in jax.tree.leaves(state) if jnp.issubdtype(a.dtype, jnp.inexact)]
    # a NaN is the largest of all; XLA:CPU finds it four times as fast as by `all`
    largest = [jnp.abs(a).max().astype(jnp.float32) for a in floats]
    return jnp.isfinite(jnp.stack(largest)).all()
