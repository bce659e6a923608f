"""The switches of a command line: words with dashes in front, which are Hydra's.

Turns words into what a parser makes of them, and what it says of a wrong one into the
error that every wrong word gets. It refuses to know which switches there are.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from typing import NoReturn

from trainer.config.errors import ConfigError
from trainer.config.spelling import nearest

_OF_A_SWITCH = re.compile(r"argument (--[\w-]+)\S*: (.*)")
_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)")
_EXAMPLES = {
    "--multirun": "--multirun lora.rank=4,8 for a run each",
    "--cfg": "--cfg job to show the configuration",
}


def parse_switches(
    parser: argparse.ArgumentParser, arguments: list[str]
) -> argparse.Namespace:
    """Return the values of a parser's switches, and what else was typed.

    Raises:
        ConfigError: A switch is unknown, or has a value that it does not take.
    """

    def refuse(message: str) -> NoReturn:
        raise _problem(message, parser._option_string_actions)

    parser.error = refuse  # type: ignore[method-assign]  # else it prints its usage
    return parser.parse_args(arguments)


def _problem(message: str, switches: Collection[str]) -> ConfigError:
    """Return the error for what `argparse` says; `switches` are all, with dashes."""
    if found := _OF_A_SWITCH.match(message):
        key, said = found[1], found[2]
        value = said.removeprefix("ignored explicit argument ")
        return ConfigError(
            key=key,
            expected="a value that it takes" if value == said else "no value",
            received=value,
            fix=_EXAMPLES.get(key, "python -m trainer --help lists groups and keys"),
        )
    found = _UNKNOWN.search(message)
    word = found[1] if found else message
    name, _, value = word.lstrip("-").partition("=")
    close = nearest(f"--{name}", switches, cutoff=0.8)
    as_key = f"{name}={value or 'VALUE'}, without dashes, if it is a key"
    return ConfigError(
        key="command line",
        expected="key=value, or a switch that there is",
        received=word,
        fix=f"{close}, or {as_key}" if close else as_key,
    )
