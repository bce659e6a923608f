"""The training command without its launch: the words that every process gets.

Turns the words of a command line into the same without `launch.*`, and a run's name
into a job's. It refuses to know where the words go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainer.config.identity import run_name
from trainer.config.launch_checks import MAX_JOB_LETTERS
from trainer.config.overrides import normalise_overrides
from trainer.config.schema import RunConfig

_PLACES = ("run.root", "run.name")
_HASH = re.compile(r"-[0-9a-f]{8}$")


def training_words(words: Sequence[str], config: RunConfig) -> list[str]:
    """Return the words of the training that a launch starts.

    Place and name of the run are those of `config`: a multirun has moved them.
    """
    kept = [word for word in words if _key(word) not in _PLACES and not _launches(word)]
    default = RunConfig().run
    places = [
        f"{key}={value}"
        for key, value, usual in (
            ("run.root", config.run.root, default.root),
            ("run.name", config.run.name, default.name),
        )
        if value != usual
    ]
    return [*kept, *normalise_overrides(places)]


def job_name(config: RunConfig) -> str:
    """Return `launch.job`, or the run's name as a DNS label with its hash kept."""
    if config.launch.job is not None:
        return config.launch.job
    name = re.sub(r"[^a-z0-9]+", "-", run_name(config).lower()).strip("-")
    name = name if name[:1].isalpha() else f"run-{name}"
    if len(name) <= MAX_JOB_LETTERS:
        return name
    found = _HASH.search(name)
    tail = found[0] if found else ""
    return name[: MAX_JOB_LETTERS - len(tail)].rstrip("-") + tail


def _key(word: str) -> str:
    return word.lstrip("+").split("=", 1)[0]


def _launches(word: str) -> bool:
    return _key(word) == "launch" or _key(word).startswith("launch.")
