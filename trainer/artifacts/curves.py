"""Curves of a run as SVG that stands inside an HTML page.

Turns metrics into small drawings of bounded size, whatever the number of steps. It
refuses to know the page around them and needs no display.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import matplotlib as mpl

MAX_POINTS = 600
_INK, _MUTED, _GRID = "#1f2933", "#6b7785", "#e4e8ed"
_COLOURS = ("#2563a8", "#c2410c", "#0f766e", "#7c3aed")
_STYLE = {
    "svg.fonttype": "none",  # text stays text: smaller, and it can be searched
    "svg.hashsalt": "report",  # the same run gives the same file
    "font.family": "DejaVu Sans",  # matplotlib's own; the page's style overrides it
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
}

Points = Sequence[tuple[int, float]]


class Curve(NamedTuple):
    """One line of a drawing."""

    label: str
    points: Points
    kind: str = "line"
    """`line`; `noisy`: a moving average over its faint values; `marked`: few points."""


def draw(curves: Sequence[Curve], *, height: float = 3.0, width: float = 8.0) -> str:
    """Return one SVG element with the curves over the step, sizes in inches."""
    # not above: it takes 0.3 s, for which no first step has to wait
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        for curve, colour in zip(curves, _COLOURS, strict=False):
            _plot(axes, curve, colour)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        if _largest(curves) >= 10_000:
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("step")
        if len(curves) > 1:
            axes.legend(frameon=False, ncols=len(curves), loc="upper right")
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    drawing = buffer.getvalue()
    return drawing[drawing.index("<svg") :]


def thin(points: Points, limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Return at most `limit` points, means of neighbours where there are more."""
    if len(points) <= limit:
        return [(float(step), value) for step, value in points]
    edges = [index * len(points) // limit for index in range(limit + 1)]
    groups = [points[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]
    return [
        (sum(s for s, _ in group) / len(group), sum(v for _, v in group) / len(group))
        for group in groups
    ]


def smooth(values: Sequence[float], span: float) -> list[float]:
    """Return the exponential moving average over about `span` values, unbiased."""
    decay = 1.0 - 1.0 / max(span, 1.0)
    total = weight = 0.0
    means = []
    for value in values:
        total = decay * total + value
        weight = decay * weight + 1.0
        means.append(total / weight)
    return means


def _plot(axes: mpl.axes.Axes, curve: Curve, colour: str) -> None:
    """Add one curve."""
    points = thin(curve.points)
    steps = [step for step, _ in points]
    values = [value for _, value in points]
    if curve.kind == "marked":
        axes.plot(steps, values, "o-", color=colour, markersize=5, label=curve.label)
    elif curve.kind == "noisy" and len(values) > 10:
        means = smooth(values, span=len(values) / 20)
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=1.0)
        axes.plot(steps, means, color=colour, linewidth=1.8, label=curve.label)
    else:
        axes.plot(steps, values, color=colour, linewidth=1.8, label=curve.label)


def _largest(curves: Sequence[Curve]) -> float:
    """Return the largest value of all curves."""
    return max((value for curve in curves for _, value in curve.points), default=0.0)
