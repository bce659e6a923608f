"""The end of a run: artifacts, card, report, results, and where they are."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import sys
import time
from typing import TYPE_CHECKING, Any

import jax

from trainer.artifacts.card import CardFacts, write_card
from trainer.artifacts.report import write_report
from trainer.artifacts.weights import write_adapter, write_full_preset
from trainer.model.state import Arrays
from trainer.tracking import Artifact, Sample, read_metrics
from trainer.training.loop import Progress

if TYPE_CHECKING:
    from trainer.tasks.train import Run

PACKAGES = ("jax", "keras", "numpy", "orbax-checkpoint", "grain", "sentencepiece")


def finish(run: Run, weights: Arrays, progress: Progress, samples: list[Sample]) -> None:
    """Write everything that a finished run leaves, the results last."""
    config, directory = run.config, run.directory
    written = write_weights(run, weights)
    run.tracker.flush()
    metrics = read_metrics(directory.path)
    results = results_of(metrics, progress, time.perf_counter() - run.started)
    facts = run.data.describe()
    environment = environment_facts()
    command = "python -m trainer " + " ".join(sys.argv[1:])
    write_report(
        directory.path / "report.html",
        title=directory.name,
        config=dataclasses.asdict(config),
        metrics=metrics,
        samples=samples,
        facts={"command": command, **results, "Environment": environment},
    )
    model = run.session.model
    lora = model.lora
    write_card(
        directory.path / "README.md",
        CardFacts(
            name=directory.name,
            preset=config.preset.name,
            data=f"{facts['train']['rows']:,} rows of {config.data.source}",
            data_digest=run.data.fingerprint,
            command=command,
            adapter=lora is not None,
            full_preset=config.artifacts.preset,
            lora={}
            if lora is None
            else {
                "rank": lora.rank,
                "alpha": lora.alpha,
                "targets": list(lora.targets),
                "factorisation": lora.factorisation,
            },
            environment=environment,
        ),
        metrics=metrics,
        samples=samples,
    )
    directory.mark_done(results)
    run.screen.samples(samples)
    show = {name: value for name, value in results.items() if value is not None}
    where = {path: directory.path / path for path in (*written, "report.html")}
    run.screen.facts("done", {**show, **where})


def write_weights(run: Run, weights: Arrays) -> list[str]:
    """Write adapter and full preset; return their places in the run's directory."""
    config, model, artifacts = run.config, run.session.model, run.directory.artifacts
    written = []
    if model.lora is not None:
        path = write_adapter(artifacts / "lora", model, weights)
        run.tracker.artifact(Artifact(name="lora", path=str(path)))
        written.append("artifacts/lora")
    if config.artifacts.preset:
        write_full_preset(
            artifacts / "preset",
            model,
            weights,
            dtype=config.artifacts.dtype or config.preset.dtype,
            sequence_length=config.data.sequence_length,
        )
        run.tracker.artifact(Artifact(name="preset", path=str(artifacts / "preset")))
        written.append("artifacts/preset")
    return written


def results_of(
    metrics: list[dict[str, Any]], progress: Progress, seconds: float
) -> dict[str, Any]:
    """Return the figures that say how a run went."""
    results: dict[str, Any] = {"step": progress.step, "rows seen": progress.rows_seen}
    for name, label in (
        ("eval/loss", "held-out loss"),
        ("eval/content_loss", "held-out loss, content alone"),
    ):
        values = [line[name] for line in metrics if line.get(name) is not None]
        if values:
            percent = 100 * (values[-1] / values[0] - 1)
            results[label] = f"{values[0]:.4f} -> {values[-1]:.4f} ({percent:+.1f} %)"
    rates = sorted(m["train/tokens_per_second"] for m in metrics if "train/loss" in m)
    if rates:
        results["tokens/s (median)"] = f"{rates[len(rates) // 2]:,.0f}"
    results["seconds"] = round(seconds, 1)
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
