"""How often what happens in a run: keys of the configuration as the loop has them."""

from __future__ import annotations

from trainer.config.profile_range import parse_profile
from trainer.config.schema import RunConfig
from trainer.training.loop import Rhythm


def rhythm_of(config: RunConfig, *, is_evaluated: bool) -> Rhythm:
    """Return the rhythm of a configuration.

    Args:
        config: Of the run.
        is_evaluated: Whether there are held-out rows.
    """
    trainer = config.trainer
    return Rhythm(
        num_train_steps=trainer.num_train_steps,
        eval_every_steps=trainer.eval_every_steps if is_evaluated else 0,
        log_every_steps=trainer.log_every_steps,
        checkpoint_every_steps=config.checkpoint.every_steps,
        max_skipped_steps=trainer.max_skipped_steps,
        recorded=parse_profile(
            trainer.profile, num_train_steps=trainer.num_train_steps
        ),
    )
