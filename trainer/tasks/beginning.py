"""What must hold before a run begins or goes on: its checkpoint and its rows.

Turns what is missing or changed into an error. It refuses to look for either itself.
"""

from __future__ import annotations

from etils import epath

from trainer.config.errors import ConfigError, DataError
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


def check_same_rows(*, found: str, digest: str) -> None:
    """Refuse to go on with rows that changed since the run began.

    Raises:
        DataError: They did; their order and packs would be others.
    """
    if found != digest:
        raise DataError(
            key="data",
            expected=f"the rows that the run began with, sha256 {digest[:16]}",
            received=f"other rows, sha256 {found[:16]}",
            fix="restore the file, or use another run.name",
        )
