"""Numbers and settings as people read them.

Turns values of a configuration and of metrics into short text. It refuses to know
the documents in which the text stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Metrics = list[dict[str, Any]]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts under dotted keys, in their order."""
    leaves: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            leaves.update(flatten(value, f"{key}."))
        else:
            leaves[key] = value
    return leaves


def shown(value: Any) -> str:  # noqa: ANN401  # whatever a configuration holds
    """Return a value as it is typed on the command line; numbers kept short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return short(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    return str(value)


def short(value: float) -> str:
    """Return a number with four significant digits, thousands separated."""
    if value and not 1e-3 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def series(metrics: Metrics, name: str) -> list[tuple[int, float]]:
    """Return (step, value) of every step that has a finite value of this name."""
    return [
        (line["step"], float(line[name]))
        for line in metrics
        if line.get(name) is not None
    ]


def change(values: Iterable[tuple[int, float]]) -> tuple[float, float, float] | None:
    """Return first value, last value and their relative change in percent."""
    numbers = [value for _, value in values]
    if len(numbers) < 2 or not numbers[0]:
        return None
    first, last = numbers[0], numbers[-1]
    return first, last, 100.0 * (last - first) / abs(first)
