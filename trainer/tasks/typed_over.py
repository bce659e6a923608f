"""A run's stored configuration with what was typed laid over it.

Turns two configurations, and the words that the second was typed with, into one. It
refuses to know which sections a task takes from a run: the tasks say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from trainer.config.keys import all_keys, value_of
from trainer.config.schema import DataConfig, RunConfig, TrainerConfig

Section = TypeVar("Section", DataConfig, TrainerConfig)
_Any = TypeVar("_Any", bound=Any)
_NAMED_BY_ONE_KEY = {"preset": "preset.name", "data": "data.source"}
"""Groups whose files say one key of their own; the others' stand for all keys."""


def typed_keys(words: Sequence[str], sections: Collection[str]) -> frozenset[str]:
    """Return the keys of some sections that words set, alone or as a file.

    Args:
        words: As typed on the command line.
        sections: First parts of the keys that are looked for.
    """
    known, found = all_keys(), set()
    for word in words:
        key = word.lstrip("+~").partition("=")[0].partition("@")[0]
        if key.partition(".")[0] not in sections:
            continue
        if key in known:
            found.add(key)
        elif key in _NAMED_BY_ONE_KEY:
            found.add(_NAMED_BY_ONE_KEY[key])
        else:
            found |= {name for name in known if name.startswith(f"{key}.")}
    return frozenset(found)


def lay_over(under: RunConfig, typed: RunConfig, keys: Collection[str]) -> RunConfig:
    """Return a configuration with some keys of another: there a default counts too."""
    for key in keys:
        under = _with_key(under, key, value_of(typed, key))
    return under


def overlaid(stored: Section, typed: Section) -> Section:
    """Return a run's section with every key that differs from its default on top."""
    default = type(typed)()
    changed = {
        field.name: getattr(typed, field.name)
        for field in dataclasses.fields(typed)
        if getattr(typed, field.name) != getattr(default, field.name)
    }
    return dataclasses.replace(stored, **changed)


def _with_key(section: _Any, key: str, value: object) -> _Any:
    name, _, rest = key.partition(".")
    if rest:
        value = _with_key(getattr(section, name), rest, value)
    return dataclasses.replace(section, **{name: value})
