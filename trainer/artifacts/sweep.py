"""`summary.md` of several runs that differ in a few keys, best first.

Turns the directories of a sweep's runs into one table. It refuses to know what
started them: Hydra, W&B or a hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from trainer import storage
from trainer.artifacts import text
from trainer.config.compose import from_yaml
from trainer.config.keys import flatten
from trainer.tracking import read_events, read_metrics

SUMMARY = "summary.md"
_NOT_COMPARED = ("run.", "tracker.", "launch.", "debug", "device.")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a sweep."""

    name: str
    """Its directory below the sweep's."""
    settings: dict[str, Any]
    """Its configuration under dotted keys."""
    loss: float | None
    """Last held-out loss, or last training loss where nothing was evaluated."""
    first: float | None
    """The same loss when it was measured first."""
    step: int
    """Last step that was logged."""
    exit_code: int | None
    """How it ended; None if it was killed, or runs."""


def write_summary(
    directory: epath.PathLike, *, failed: Sequence[tuple[str, int]] = ()
) -> list[Job]:
    """Write `summary.md` of the runs below `directory` and return them, best first.

    Runs without a loss come last: a failed job does not hide the others.

    Args:
        directory: Parent of the runs' directories.
        failed: What was typed for jobs that ended badly, with their exit codes; one
            that never began has no directory to tell of it.
    """
    root = epath.Path(directory)
    measure = "eval/loss"
    jobs = _jobs(root, measure)
    if all(job.loss is None for job in jobs):
        measure = "train/loss"
        jobs = _jobs(root, measure)
    jobs.sort(key=lambda job: (job.loss is None, job.loss or 0.0, job.name))
    page = _page(root.name, jobs, measure)
    if failed:
        page += "\nEnded badly:\n\n"
        page += "".join(f"- `{words}`: exit code {code}\n" for words, code in failed)
    storage.write_text(root / SUMMARY, page)
    return jobs


def _jobs(root: epath.Path, measure: str) -> list[Job]:
    """Return the runs below `root`, those that wrote their configuration."""
    return [
        _job(root, name, measure)
        for name in storage.list_names(root)
        if storage.exists(root / name / "config.yaml")
    ]


def _job(root: epath.Path, name: str, measure: str) -> Job:
    """Read one run."""
    path = root / name / "config.yaml"
    written = from_yaml(storage.read_text(path), origin=str(path))
    metrics = read_metrics(root / name)
    values = [value for _, value in text.series(metrics, measure)]
    ends = read_events(root / name, "end")
    return Job(
        name=name,
        settings=flatten(written),
        loss=values[-1] if values else None,
        first=values[0] if values else None,
        step=max((line["step"] for line in metrics), default=0),
        exit_code=ends[-1].get("exit_code") if ends else None,
    )


def _differing(jobs: list[Job]) -> list[str]:
    """Return the keys in which the runs differ, in the order of the configuration."""
    keys = dict.fromkeys(key for job in jobs for key in job.settings)
    return [
        key
        for key in keys
        if not key.startswith(_NOT_COMPARED)
        and len({repr(job.settings.get(key)) for job in jobs}) > 1
    ]


def _page(title: str, jobs: list[Job], measure: str) -> str:
    """Return the summary as Markdown."""
    keys = _differing(jobs)
    head = ["", *keys, measure, "at first", "steps", "end", "run"]
    lines = [
        f"# {title}",
        "",
        f"{len(jobs)} runs, best `{measure}` first.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "--:|" * len(head),
    ]
    for place, job in enumerate(jobs, start=1):
        cells = [
            str(place) if job.loss is not None else "",
            *(text.shown(job.settings.get(key)) for key in keys),
            "none" if job.loss is None else text.short(job.loss),
            "none" if job.first is None else text.short(job.first),
            str(job.step),
            "not ended" if job.exit_code is None else f"exit {job.exit_code}",
            f"[{job.name}]({job.name}/report.html)",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
