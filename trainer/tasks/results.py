"""What a run came to, and what it ran on, as facts to show."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
from typing import Any

import jax

from trainer.training.loop import Progress

PACKAGES = ("jax", "keras", "numpy", "orbax-checkpoint", "grain", "sentencepiece")


_WORSE = (
    "held-out rows are told worse than before training: a lower "
    "optimizer.learning_rate, fewer steps, or artifacts.source=best"
)


def results_of(
    metrics: list[dict[str, Any]],
    progress: Progress,
    seconds: float,
    *,
    went_on: bool = False,
) -> dict[str, Any]:
    """Return the figures that say how a run went.

    Args:
        metrics: Lines of `metrics.jsonl`, a step once.
        progress: What was done in all.
        seconds: Since the last start.
        went_on: Whether there was one before.
    """
    results: dict[str, Any] = {"step": progress.step, "rows seen": progress.rows_seen}
    for name, label in (
        ("eval/loss", "held-out loss"),
        ("eval/content_loss", "held-out loss, content alone"),
    ):
        values = [line[name] for line in metrics if line.get(name) is not None]
        if values:
            percent = 100 * (values[-1] / values[0] - 1)
            results[label] = f"{values[0]:.4f} -> {values[-1]:.4f} ({percent:+.1f} %)"
            if name == "eval/loss" and values[-1] > values[0]:
                results["warning"] = _WORSE
    rates = [m["train/tokens_per_second"] for m in metrics if "train/loss" in m]
    if rates:  # the first, compiling step does not move a median
        results["tokens/s (median)"] = f"{statistics.median(rates):,.0f}"
    shares = [m["train/mfu"] for m in metrics if "train/mfu" in m]
    if shares:
        results["MFU (median)"] = f"{statistics.median(shares):.1%}"
    peaks = [
        m["train/memory_peak_bytes"] for m in metrics if "train/memory_peak_bytes" in m
    ]
    if peaks:
        results["memory"] = f"{max(peaks) / 2**30:.2f} GiB"
    results["seconds since the last start" if went_on else "seconds"] = round(
        seconds, 1
    )
    return results


def environment_facts() -> dict[str, str]:
    """Return versions and devices; nothing that identifies a person or a path."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": str(jax.process_count()),
        **versions,
    }
