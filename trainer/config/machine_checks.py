"""Whether what a run does beside training can be done: a profile, kept programs.

Turns keys of `trainer.*` that change no number of a run into problems. It refuses to
look at the machine: a directory that cannot be written is no error.
"""

from __future__ import annotations

from collections.abc import Iterator

from trainer.config.errors import ConfigError
from trainer.config.profile_range import parse_profile
from trainer.config.schema import RunConfig


def machine_problems(config: RunConfig) -> Iterator[ConfigError]:
    """Yield what is wrong with the profile and the directory of programs."""
    trainer = config.trainer
    try:
        parse_profile(trainer.profile, num_train_steps=trainer.num_train_steps)
    except ConfigError as error:
        yield error
    if "://" in trainer.compilation_cache:
        yield ConfigError(
            key="trainer.compilation_cache",
            expected="auto, none or a directory of this machine",
            received=trainer.compilation_cache,
            fix="trainer.compilation_cache=auto",
        )
