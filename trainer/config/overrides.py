"""The words of the command line, brought into the one form that Hydra understands.

Turns the spellings that people use (`+preset=`, `mesh=1x8`, `artifacts.from=`) into
overrides, without judging them: `trainer.config.override_checks` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainer.config.choices import groups
from trainer.config.keys import all_keys

_ASSIGNMENT = re.compile(r"(\+{0,2})([A-Za-z_][\w./]*)=(.*)", re.DOTALL)
_MESH = re.compile(r"\d+x\d+(,(auto|\d+x\d+))*|auto(,(auto|\d+x\d+))*,\d+x\d+")
_NEEDS_QUOTES = re.compile(r"[^A-Za-z0-9_\-./:*?@%+~ ]")
_QUOTED = re.compile(r"""(['"])(\\.|(?!\1).)*\1""", re.DOTALL)
_ADDED_GROUPS = frozenset({"experiment"})  # not in the defaults list of config.yaml
_RENAMED = {"artifacts.from": "artifacts.source"}  # `from` is a word of Python
_PLAIN_TEXT = frozenset({"generate.prompt"})
_MAYBE_SWEPT_TEXT = frozenset(
    {"data.path", "data.eval_path", "data.split", "data.eval_split", "run.root"}
)


def normalise_overrides(arguments: Sequence[str]) -> list[str]:
    """Rewrite every override to the form that Hydra takes; leave the rest alone.

    `+preset=X` becomes `preset=X`, as do other groups and known keys; a recipe gets the
    `+` that Hydra wants; `mesh=1x8` becomes `mesh.shape=1x8` unless a file has that
    name; `artifacts.from` becomes `artifacts.source`; free text is quoted.
    """
    return [_normalise(argument) for argument in arguments]


def is_override(word: str) -> bool:
    """Return whether a word is an override, and no switch."""
    return not word.startswith("-") and ("=" in word or word.startswith("~"))


def in_quotes(text: str) -> str:
    """Return an override whose value Hydra's grammar takes as it is."""
    key, equals, value = text.partition("=")
    return f"""'{key}="{value}"'""" if equals else f"{text}=VALUE, or --help"


def _normalise(argument: str) -> str:
    match = _ASSIGNMENT.fullmatch(argument)
    if not match:
        return argument
    plus, key, value = match.groups()
    key = _RENAMED.get(key, key)
    if key in _ADDED_GROUPS:
        return f"+{key}={value}"
    if key == "mesh" and value not in groups()["mesh"] and _MESH.fullmatch(value):
        return f"mesh.shape={value}"
    if key in groups() or key in all_keys():
        plus = ""
    return f"{plus}{key}={_quoted(key, value)}"


def _quoted(key: str, value: str) -> str:
    """Return a value of free text in quotes where Hydra's grammar needs them."""
    if key not in _PLAIN_TEXT | _MAYBE_SWEPT_TEXT or value == "null":
        return value
    if value.startswith("${") or _QUOTED.fullmatch(value):
        return value
    if key in _MAYBE_SWEPT_TEXT:
        commas = "," if "[" not in value else ""  # a comma in a slice is no sweep
        if not _NEEDS_QUOTES.search(value.replace(commas, "") if commas else value):
            return value
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", value)
    trailing = len(value) - len(value.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"
