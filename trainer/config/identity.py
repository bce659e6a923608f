"""Which run a configuration is: its name, and what another one has different.

Turns a configuration into the name of its directory, and two configurations into the
keys that differ. It refuses to know whether the directory exists.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from trainer.config.checks import raise_problems
from trainer.config.compose import typed_again
from trainer.config.errors import ConfigError
from trainer.config.keys import flatten
from trainer.config.schema import RunConfig

# Keys that change no number of the run: what is shown, kept, sent or done afterwards.
_UNDECIDING = (
    "artifacts.*",
    "checkpoint.*",
    "debug",
    "distributed.*",
    "export.*",
    "generate.*",
    "launch.*",
    "plan.*",
    "resume",
    "run.*",
    "task",
    "tracker.*",
    "trainer.compilation_cache",
    "trainer.eval_every_steps",
    "trainer.log_every_steps",
    "trainer.max_skipped_steps",
    "trainer.profile",
    "trainer.sample_prompts",
)
# Keys that decide numbers and may still change when a named run goes on.
_CHANGEABLE = (
    "data.eval_path",
    "data.eval_rows",
    "data.eval_split",
    "device.*",
    "mesh.*",
    "optimizer.learning_rate",
    "schedule.*",
    "trainer.num_train_steps",
)
_HASH_DIGITS = 8


@dataclasses.dataclass(frozen=True)
class Difference:
    """Keys in which two configurations differ, with the old and the new value.

    Attributes:
        allowed: May change when a run goes on, and is recorded.
        refused: Would make it another run.
    """

    allowed: dict[str, tuple[Any, Any]]
    refused: dict[str, tuple[Any, Any]]


def deciding_keys(config: RunConfig) -> dict[str, Any]:
    """Map every key that decides the numbers of a run to its value."""
    return {
        key: value
        for key, value in flatten(config).items()
        if not _matches(key, _UNDECIDING)
    }


def run_name(config: RunConfig) -> str:
    """Return `run.name`, or `<preset>-<data>-<hash>` of the keys that decide."""
    if config.run.name is not None:
        return config.run.name
    digest = _hash(deciding_keys(config))
    return f"{_slug(config.preset.name)}-{_slug(_data_name(config))}-{digest}"


def sweep_name(swept: Sequence[str], overrides: Sequence[str]) -> str:
    """Return the name of a multirun: the same for the same command.

    Args:
        swept: Keys that take several values.
        overrides: All overrides, normalised.
    """
    deciding = sorted(
        word for word in overrides if not _matches(word.split("=", 1)[0], _UNDECIDING)
    )
    words = [_slug(key.rsplit(".", 1)[-1]) for key in swept]
    return "-".join(["sweep", *words, _hash(deciding)])


def difference(old: RunConfig, new: RunConfig) -> Difference:
    """Return the keys that differ, apart by whether a run may go on with them."""
    before, after = flatten(old), flatten(new)
    changed = {
        key: (before[key], after[key]) for key in before if before[key] != after[key]
    }
    may = {key for key in changed if _matches(key, _UNDECIDING + _CHANGEABLE)}
    return Difference(
        allowed={key: values for key, values in changed.items() if key in may},
        refused={key: values for key, values in changed.items() if key not in may},
    )


def check_resume(old: RunConfig, new: RunConfig, *, directory: str) -> Difference:
    """Return what differs from the configuration a directory was made with.

    Raises:
        ConfigError: A key differs that would make it another run; with both values.
    """
    found = difference(old, new)
    _refuse(found.refused, directory)
    return found


def check_same_keys(made_with: Mapping[str, Any], now: RunConfig, *, to: str) -> None:
    """Refuse keys that make another run than the one a checkpoint is of.

    Args:
        made_with: Keys and values that the checkpoint tells, as JSON has them.
        now: Configuration that would go on with it.
        to: Name of the checkpoint, for messages.

    Raises:
        ConfigError: A key differs; with both values.
    """
    keys = json.loads(json.dumps(deciding_keys(now)))
    refused = {
        key: (made_with[key], value)
        for key, value in keys.items()
        if not _matches(key, _CHANGEABLE) and made_with.get(key, value) != value
    }
    _refuse(refused, to)


def _refuse(refused: Mapping[str, tuple[Any, Any]], directory: str) -> None:
    raise_problems(
        [
            ConfigError(
                key=key,
                expected=f"{typed_again(before)}, with which {directory} was made",
                received=typed_again(after),
                fix=f"{key}={typed_again(before)}, or another run.name",
            )
            for key, (before, after) in refused.items()
        ]
    )


def _data_name(config: RunConfig) -> str:
    data = config.data
    if data.source == "jsonl" and data.path:
        return data.path.rsplit("/", 1)[-1].split(".", 1)[0] or data.source
    if data.source == "tfds" and data.name:
        return data.name.split("/", 1)[0].split(":", 1)[0]
    return data.source


def _slug(text: str) -> str:
    """Return the last part of a path or handle in characters that suit a folder."""
    last = text.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._]+", "_", last).strip("_.")[:40] or "x"


def _hash(values: object) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)
