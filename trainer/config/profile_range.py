"""Which steps `trainer.profile` means.

Turns `10-15` into two numbers, and what cannot be meant into an error that names the
nearest steps. It refuses to know what a profile is.
"""

from __future__ import annotations

import re

from trainer.config.errors import ConfigError

MAX_STEPS = 100  # a trace grows by megabytes a step, and its reader gives up


def parse_profile(text: str | None, *, num_train_steps: int) -> tuple[int, int] | None:
    """Turn `10-15` or `10` into the first and the last step; None stays None.

    Raises:
        ConfigError: It is no such range, too long, or beyond the run's steps.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    if found is None:
        raise _wrong(text, "FIRST-LAST, steps such as 10-15", "10-15")
    first, last = int(found[1]), int(found[2] or found[1])
    low, high = sorted((max(first, 1), max(last, 1)))
    high = min(high, num_train_steps)
    low = min(low, high)
    if (low, high) != (first, last):
        expected = (
            f"FIRST-LAST, steps from 1 to trainer.num_train_steps={num_train_steps}"
        )
        raise _wrong(text, expected, f"{low}-{high}")
    if last - first >= MAX_STEPS:
        most = f"at most {MAX_STEPS} steps: a trace of more can hardly be opened"
        raise _wrong(text, most, f"{first}-{first + MAX_STEPS - 1}")
    return first, last


def _wrong(text: str, expected: str, fix: str) -> ConfigError:
    return ConfigError(
        key="trainer.profile",
        expected=expected,
        received=text,
        fix=f"trainer.profile={fix}",
    )
