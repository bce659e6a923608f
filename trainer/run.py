"""The composition root: from a typed configuration to a task's exit code.

Joins what must not know each other: the tasks, which train and measure, and the
artifacts, which are written when a run is finished.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import sys
import time
from collections.abc import Callable, Sequence

from etils import epath

from trainer.artifacts.card import CardFacts, write_card
from trainer.artifacts.report import write_report
from trainer.artifacts.weights import (
    merged_tree,
    write_adapter,
    write_full_hf,
    write_full_preset,
    write_peft_adapter,
)
from trainer.checkpoint.shared import check_shared
from trainer.config.errors import (
    RunError,
)
from trainer.config.schema import RunConfig
from trainer.distribution.exchange import from_primary
from trainer.distribution.facts import shared_facts
from trainer.distribution.joining import (
    join,
    note_end,
)
from trainer.model.assemble import hash_of_base
from trainer.tasks.compiled_programs import keep_compiled_programs
from trainer.tasks.console import Screen
from trainer.tasks.evaluate import run_evaluation
from trainer.tasks.explaining import explained
from trainer.tasks.export import run_export
from trainer.tasks.generate import run_generation
from trainer.tasks.plan import run_plan
from trainer.tasks.results import environment_facts, results_of
from trainer.tasks.subject import Subject
from trainer.tasks.train import Finished, run_training
from trainer.tracking import Artifact, read_events, read_metrics


def run(config: RunConfig, words: Sequence[str] = ()) -> int:
    """Do what `config.task` says and return the process's exit code.

    Args:
        config: What to do.
        words: What was typed for it, to show how to make the run again.

    Of several processes each calls this; `joining` sees to their end.

    Raises:
        RunError: With the message and exit code for the user.
    """
    try:
        with explained(config):
            keep_compiled_programs(config.trainer.compilation_cache, _warn)
            if config.task != "plan":  # it looks ahead, alone, and leaves nothing
                join(config, shared_facts(config))
                check_shared(epath.Path(config.run.root))
            return _tasks(words)[config.task](config, Screen())
    except RunError as error:
        note_end(error)
        raise


def finish(finished: Finished, *, words: Sequence[str]) -> None:
    """Write everything that a finished run leaves behind, the results last."""
    run, directory = finished.run, finished.run.directory
    written = _write_weights(finished)
    merged = _measure_merged(finished)
    results = from_primary(
        "the results", lambda: _write_results(finished, words, merged)
    )
    run.screen.samples(finished.samples)
    places = {name: directory.path / name for name in (*written, "report.html")}
    run.screen.facts("done", results | places)


def _write_results(
    finished: Finished, words: Sequence[str], merged: dict[str, str]
) -> dict[str, object]:
    """Write report, card and results, the results last, and return these."""
    run, config, directory = finished.run, finished.run.config, finished.run.directory
    run.tracker.flush()
    metrics = read_metrics(directory.path)
    seconds = time.perf_counter() - run.started
    went_on = bool(read_events(directory.path, "restored"))
    results = results_of(metrics, finished.progress, seconds, went_on=went_on) | merged
    command = shlex.join(["python", "-m", "trainer", *words])
    environment = environment_facts()
    write_report(
        directory.path / "report.html",
        title=directory.name,
        config=dataclasses.asdict(config),
        metrics=metrics,
        samples=finished.samples,
        facts={"command": command, **results, "Environment": environment},
    )
    write_card(
        directory.path / "README.md",
        _card_facts(finished, command, environment),
        metrics=metrics,
        samples=finished.samples,
    )
    directory.mark_done(results)
    return results


def _write_weights(finished: Finished) -> list[str]:
    """Write adapter and full preset; return their places in the run's directory."""
    run, weights = finished.run, finished.weights
    config, model, artifacts = run.config, run.session.model, run.directory.artifacts
    written = []
    if model.has_only_adapters:
        load_weights = config.preset.load_weights
        base_hash = hash_of_base(model, weights, load_weights=load_weights)
        path = write_adapter(artifacts / "lora", model, weights, base_hash=base_hash)
        run.tracker.artifact(Artifact(name="lora", path=str(path.parent)))
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


def write_export(subject: Subject, directory: epath.Path) -> None:
    """Write a model or its adapter in the form that `export.format` names."""
    config, model, weights = (
        subject.session.config,
        subject.session.model,
        subject.weights,
    )
    dtype = config.artifacts.dtype or config.preset.dtype
    if config.export.format == "hf":
        write_full_hf(directory, model, weights, dtype=dtype)
    elif config.export.format == "preset":
        length = config.data.sequence_length
        write_full_preset(
            directory, model, weights, dtype=dtype, sequence_length=length
        )
    else:
        load_weights = config.preset.load_weights
        base_hash = hash_of_base(model, weights, load_weights=load_weights)
        write_peft_adapter(directory, model, weights, base_hash=base_hash)


def _measure_merged(finished: Finished) -> dict[str, str]:
    """Return what merging and rounding did to the held-out loss."""
    run, config = finished.run, finished.run.config
    if not config.artifacts.preset or run.evaluator is None:
        return {}
    if run.session.model.quantization is not None:
        shown = "not measured: it is float, and the run held no float model"
        return {"held-out loss of the full preset": shown}
    dtype = config.artifacts.dtype or config.preset.dtype
    trained = run.evaluator(finished.weights)["eval/loss"]
    # the trained weights give their memory to the merged ones: nothing needs them now
    weights = merged_tree(run.session.model, finished.weights, dtype)
    merged = run.evaluator(weights)["eval/loss"]
    run.tracker.event("merged", {"dtype": dtype, "loss": merged, "trained": trained})
    shown = f"{merged:.6f} in {dtype}, {merged - trained:+.1e} against the adapter"
    return {"held-out loss of the full preset": shown}


def _card_facts(
    finished: Finished, command: str, environment: dict[str, str]
) -> CardFacts:
    run, config = finished.run, finished.run.config
    lora = run.session.model.lora
    rows = run.data.describe()["train"]["rows"]
    return CardFacts(
        name=run.directory.name,
        preset=config.preset.name,
        data=f"{rows:,} rows of {config.data.source}",
        data_digest=run.data.fingerprint,
        command=command,
        where=shlex.join(
            [f"run.root={config.run.root}", f"run.name={run.directory.name}"]
        ),
        adapter=run.session.model.has_only_adapters,
        full_preset=config.artifacts.preset,
        lora={} if lora is None else dataclasses.asdict(lora),
        environment=environment,
    )


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def _tasks(words: Sequence[str]) -> dict[str, Callable[[RunConfig, Screen], int]]:
    return {
        "train": functools.partial(
            run_training, finish=functools.partial(finish, words=words)
        ),
        "evaluate": functools.partial(run_evaluation, words=words),
        "plan": functools.partial(run_plan, words=words),
        "generate": functools.partial(run_generation, words=words),
        "export": functools.partial(run_export, write=write_export, words=words),
    }
