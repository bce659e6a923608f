"""From measured runs to medians, ratios and a table in Markdown.

Pure: lists of numbers in, text out. It refuses to know who was measured, and how.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
"""What `child.py` prints, with `seconds_to_first_step`; or one with `failed`."""


def tokens_per_second(result: Result, tokens_per_step: int) -> float:
    """Return the rate of a run's median step; the first, which compiles, is apart."""
    return tokens_per_step / statistics.median(result["step_seconds"])


def summary(rounds: Sequence[Result], tokens_per_step: int) -> dict[str, Any]:
    """Return the medians over the rounds of one subject.

    A subject that failed in any round has only `failed`, the reason.
    """
    for result in rounds:
        if "failed" in result:
            return {"failed": result["failed"]}
    rates = [tokens_per_second(result, tokens_per_step) for result in rounds]
    medians = {
        name: statistics.median(result[name] for result in rounds)
        for name in ("peak_bytes", "seconds_to_first_step", "import_seconds")
    }
    return {
        "tokens_per_second": statistics.median(rates),
        "tokens_per_second_range": [min(rates), max(rates)],
        **medians,
    }


def ratio_to_best(
    ours: Sequence[float], peers: Sequence[Sequence[float]], best: Callable[..., float]
) -> float:
    """Return the median over rounds of ours over the best peer of the same round.

    A machine that is slower for a while is so for a whole round, and drops out.

    Args:
        ours: One figure a round.
        peers: The same of every peer.
        best: `max` where more is better, `min` where less is.
    """
    rounds = zip(*peers, strict=True)
    pairs = zip(ours, rounds, strict=True)
    return statistics.median(own / best(others) for own, others in pairs)


def ratios(
    measured: Mapping[str, Sequence[Result]], tokens_per_step: int, *, ours: str
) -> dict[str, float]:
    """Return our rate and peak memory over those of the best peers that ran."""
    ran = {
        name: rounds
        for name, rounds in measured.items()
        if rounds and not any("failed" in result for result in rounds)
    }
    peers = [rounds for name, rounds in ran.items() if name != ours]
    if ours not in ran or not peers:
        return {}

    def rates(rounds: Sequence[Result]) -> list[float]:
        return [tokens_per_second(result, tokens_per_step) for result in rounds]

    def peaks(rounds: Sequence[Result]) -> list[float]:
        return [result["peak_bytes"] for result in rounds]

    return {
        "tokens_per_second": ratio_to_best(
            rates(ran[ours]), [rates(rounds) for rounds in peers], max
        ),
        "peak_bytes": ratio_to_best(
            peaks(ran[ours]), [peaks(rounds) for rounds in peers], min
        ),
    }


def markdown_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text_columns: Sequence[int] = (0,),
) -> str:
    """Return a table; all columns but those of text are figures, to the right."""
    rules = ["---" if i in text_columns else "--:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rules, *rows))


def summary_cells(values: Mapping[str, Any]) -> list[str]:
    """Return a subject's figures as a person reads them."""
    if "failed" in values:
        return [f"did not run: {values['failed']}", "", "", "", ""]
    low, high = values["tokens_per_second_range"]
    return [
        f"{values['tokens_per_second']:,.0f}",
        f"{low:,.0f} to {high:,.0f}",
        f"{values['peak_bytes'] / 1e9:.2f} GB",
        f"{values['seconds_to_first_step']:.1f} s",
        f"{values['import_seconds']:.1f} s",
    ]
