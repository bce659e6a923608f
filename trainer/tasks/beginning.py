"""What must hold before a run begins: that nobody wanted it to go on.

Turns a checkpoint that is missing into an error. It refuses to look for it itself.
"""

from __future__ import annotations

from etils import epath

from trainer.config.errors import ConfigError
from trainer.config.schema import RunConfig


def check_may_begin(config: RunConfig, checkpoints: epath.Path) -> None:
    """Refuse to begin where the user said that there must be a checkpoint.

    Raises:
        ConfigError: `resume=must`, and nothing was saved.
    """
    if config.resume == "must":
        raise ConfigError(
            key="resume",
            expected=f"a checkpoint in {checkpoints}",
            received="resume=must and no checkpoint",
            fix="resume=auto starts from the beginning",
        )
