"""What a run does about steps that the devices skipped, and about ruined weights.

Turns a skipped step into an event with its rows and one line for a person, and a state
that is not finite into an error instead of a checkpoint. It refuses to know why a step
was skipped: the devices decided.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from trainer.config.errors import NumericsError
from trainer.data.sources import RowSet
from trainer.tasks.console import Screen
from trainer.tracking import Tracker
from trainer.training.progress import SkippedStep
from trainer.training.step import TrainState


def tell_skipped(
    skipped: SkippedStep, rows: RowSet, *, tracker: Tracker, screen: Screen
) -> None:
    """Record which rows a skipped step had, by place and never by content.

    A run that was killed meets the same batch again: two events with one position are
    one skipped step.
    """
    places = [rows.place(n) for n in dict.fromkeys(skipped.batch.row_numbers)]
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
    tracker.event("skipped", facts)
    tracker.flush()
    screen.line(
        f"step {skipped.step} is skipped: loss {skipped.loss:.4g}, gradient norm "
        f"{skipped.grad_norm:.4g}, {reason}; events.jsonl names its {len(places)} rows"
    )


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
    if bool(np.asarray(_is_finite(state).addressable_data(0))):
        return
    goes_on = f"checkpoint {kept} is the newest good one" if kept else "none is kept"
    raise NumericsError(
        key="optimizer.learning_rate",
        expected=f"finite weights and moments after step {step}",
        received="an update that left some of them not finite; they are not saved",
        fix=f"a lower optimizer.learning_rate; {goes_on}",
    )


@jax.jit
def _is_finite(state: TrainState) -> jax.Array:
    numbers = [
        x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    return jnp.stack([jnp.isfinite(x).all() for x in numbers]).all()
