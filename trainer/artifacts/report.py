"""`report.html`: one page that says what a run did, complete in itself.

Turns configuration, metrics, samples and facts into a file that needs no network and
no other file. It refuses to know how any of them came about.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from etils import epath
from markupsafe import Markup

from trainer import storage
from trainer.artifacts import curves, text
from trainer.artifacts.curves import Curve
from trainer.tracking import Sample

__all__ = ["Sample", "write_report"]

LABELS = {
    "eval/loss": "held-out loss",
    "eval/content_loss": "held-out loss, content alone",
    "train/loss": "training loss",
    "train/tokens_per_second": "tokens a second",
    "train/learning_rate": "learning rate",
    "train/grad_norm": "gradient norm",
}
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("trainer.artifacts"),
    autoescape=True,  # prompts and answers are anybody's text
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


class Tile(NamedTuple):
    """A number that is seen first."""

    label: str
    value: str
    note: str = ""


class Drawing(NamedTuple):
    """A curve with its heading."""

    title: str
    svg: Markup


def write_report(
    path: epath.PathLike,
    *,
    title: str,
    config: Mapping[str, Any],
    metrics: text.Metrics,
    samples: Sequence[Sample],
    facts: Mapping[str, Any],
) -> None:
    """Write the page to `path`, local or remote.

    Args:
        path: File to write, replaced if there is one.
        title: Heading, such as the run's name.
        config: The resolved configuration, nested dicts, without secrets.
        metrics: One dict a step with `step` and named values, as `read_metrics` has
            them.
        samples: Prompts answered before and after training.
        facts: What else there is to say, label to value, in order. A dict as value
            makes a table of its own; `command` is shown as what to type.
    """
    tables = {label: rows for label, rows in facts.items() if isinstance(rows, Mapping)}
    rows = {
        label: value
        for label, value in facts.items()
        if label not in tables and label != "command"
    }
    page = _ENVIRONMENT.get_template("report.html.j2").render(
        title=title,
        command=facts.get("command"),
        tiles=_tiles(metrics),
        loss=_loss_drawing(metrics),
        drawings=_drawings(metrics),
        samples=samples,
        tables={"Run": rows, **tables} if rows else tables,
        config=_sections(config),
        shown=text.shown,
    )
    storage.write_text(path, page)


def _tiles(metrics: text.Metrics) -> list[Tile]:
    """Return the numbers that are seen first."""
    tiles = []
    for name in ("eval/loss", "eval/content_loss"):
        found = text.change(text.series(metrics, name))
        if found is not None:
            first, last, percent = found
            value = f"{text.short(first)} → {text.short(last)}"
            tiles.append(Tile(LABELS[name], value, f"{percent:+.1f} %"))
    losses = text.series(metrics, "train/loss")
    if losses:
        steps, loss = losses[-1]
        tiles.append(Tile("training loss", text.short(loss), f"after step {steps:,}"))
    rates = [value for _, value in text.series(metrics, "train/tokens_per_second")]
    if rates:
        tiles.append(
            Tile("tokens a second", text.short(statistics.median(rates)), "median")
        )
    rows = text.series(metrics, "train/rows_seen")
    if rows:
        tiles.append(Tile("rows seen", f"{rows[-1][1]:,.0f}"))
    return tiles


def _loss_drawing(metrics: text.Metrics) -> Markup | None:
    """Return the loss while training and on held-out rows."""
    lines = []
    for name, kind in (
        ("train/loss", "noisy"),
        ("eval/loss", "marked"),
        ("eval/content_loss", "marked"),
    ):
        points = text.series(metrics, name)
        if points:
            lines.append(Curve(LABELS[name], points, kind))
    # Markup: the drawing is ours, and matplotlib escapes its labels.
    return Markup(curves.draw(lines, height=3.4)) if lines else None


def _drawings(metrics: text.Metrics) -> list[Drawing]:
    """Return the smaller curves that there are values for."""
    drawings = []
    for name, kind in (
        ("train/tokens_per_second", "line"),
        ("train/learning_rate", "line"),
        ("train/grad_norm", "noisy"),
    ):
        points = text.series(metrics, name)
        if len(points) > 1:
            svg = curves.draw([Curve(LABELS[name], points, kind)], height=2.2, width=4)
            drawings.append(Drawing(LABELS[name], Markup(svg)))
    return drawings


def _sections(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the configuration by group, single keys first."""
    groups = {
        name: text.flatten(value)
        for name, value in config.items()
        if isinstance(value, Mapping)
    }
    single = {name: value for name, value in config.items() if name not in groups}
    return {"general": single, **groups} if single else groups
