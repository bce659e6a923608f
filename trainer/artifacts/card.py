"""The model card of a run, `README.md`: what the model is and what is not known of it.

Turns facts and metrics of a run into a page that a model hub understands. It refuses
to claim what was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jinja2
from etils import epath

from trainer import storage
from trainer.artifacts import text
from trainer.tracking import Sample

GEMMA_TERMS = "https://ai.google.dev/gemma/terms"
_EMBEDDED = "gemma2_tiny_en"
_NAMES = {
    "eval/loss": "held-out loss (content and end of turn)",
    "eval/content_loss": "held-out loss (content alone)",
    "train/loss": "training loss",
}
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("trainer.artifacts"),
    autoescape=False,  # Markdown, not HTML: `_quoted` escapes the samples
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
)


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card says beside the metrics."""

    name: str
    """The run's name."""
    preset: str
    """Base model: built-in name, handle or directory."""
    data: str
    """Which rows it was trained on, in one sentence."""
    data_digest: str
    """Fingerprint of these rows."""
    command: str
    """What to type to make it again."""
    where: str
    """The words that find the run, as typed."""
    adapter: bool
    """Whether `artifacts/lora/adapter.lora.h5` is there."""
    full_preset: bool
    """Whether `artifacts/preset/` is there."""
    lora: Mapping[str, Any] = field(default_factory=dict)
    """Rank, alpha, targets and factorisation of the adapter."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Versions and devices."""


class Licence(NamedTuple):
    """Under which terms the base model is."""

    identifier: str
    note: str


class Number(NamedTuple):
    """A row of the table of results."""

    name: str
    first: str
    last: str
    change: str


def write_card(
    path: epath.PathLike,
    facts: CardFacts,
    *,
    metrics: text.Metrics,
    samples: Sequence[Sample],
) -> None:
    """Write the card to `path`, local or remote."""
    licence = licence_of(facts.preset)
    page = _ENVIRONMENT.get_template("card.md.j2").render(
        facts=facts,
        licence=licence,
        base_model=_hub_name(facts.preset),
        numbers=_numbers(metrics),
        steps=max((line["step"] for line in metrics), default=0),
        samples=samples,
        quoted=_quoted,
        shown=text.shown,
    )
    storage.write_text(path, page)


def licence_of(preset: str) -> Licence:
    """Return the terms of a base model as far as its name tells them."""
    name = preset.rstrip("/").rsplit("/", 1)[-1]
    if name == _EMBEDDED:
        return Licence(
            "apache-2.0",
            "The base model was trained by this project from open text; the notices "
            "of its sources lie beside the embedded preset.",
        )
    if "gemma" in name.lower():
        return Licence(
            "gemma",
            f"The base model is Gemma: this model is a derivative of it under the "
            f"[Gemma Terms of Use]({GEMMA_TERMS}), which go with every copy.",
        )
    return Licence(
        "other",
        "The name of the base model does not tell its licence. Look it up before this "
        f"model is passed on; derivatives of Gemma are under {GEMMA_TERMS}.",
    )


def _hub_name(preset: str) -> str | None:
    """Return the name that a model hub links to, if the base model has one."""
    if preset.startswith("hf://"):
        return "/".join(preset.removeprefix("hf://").split("/")[:2])
    return None


def _numbers(metrics: text.Metrics) -> list[Number]:
    """Return the losses that were measured, first and last."""
    rows = []
    for name, label in _NAMES.items():
        found = text.change(text.series(metrics, name))
        if found is not None:
            first, last, percent = found
            change = f"{percent:+.1f} %"
            rows.append(Number(label, text.short(first), text.short(last), change))
    return rows


def _quoted(answer: str | None) -> str:
    """Return any text as one cell of a Markdown table that shows it literally."""
    if answer is None:
        return "(not trained to the end)"
    flat = " ".join(answer.split()) or " "
    literal = flat.translate({ord(mark): f"\\{mark}" for mark in "\\`*_[]#"})
    return literal.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
