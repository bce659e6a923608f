"""SIGTERM in whatever a run is doing: exit code 83, soon, and the run goes on."""

import dataclasses
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.tracking import read_events, read_metrics

STEPS = 4
WORDS = (
    "run.name=run",
    f"trainer.num_train_steps={STEPS}",
    "trainer.eval_every_steps=0",
    "trainer.sample_prompts=0",
    "checkpoint.every_steps=50",
    "artifacts.preset=false",
)
MANY_STEPS = ("trainer.num_train_steps=3000",)
LONG_EVALUATION = ("trainer.eval_every_steps=2", "data.eval_rows=4000")
PROMPTS = ("trainer.sample_prompts=16", "generate.max_new_tokens=48")


def maps_jax(pid: int, run: Path) -> bool:
    return "jaxlib" in Path(f"/proc/{pid}/maps").read_text()


def is_built(pid: int, run: Path) -> bool:
    return bool(read_events(run, "built")) if run.exists() else False


def made_step(pid: int, run: Path) -> bool:
    return run.exists() and any("train/loss" in m for m in read_metrics(run))


def made_two_steps(pid: int, run: Path) -> bool:
    return run.exists() and any(m["step"] == 2 for m in read_metrics(run))


def saves(pid: int, run: Path) -> bool:
    return any((run / "checkpoints").glob("*tmp*"))


def writes_artifacts(pid: int, run: Path) -> bool:
    return (run / "artifacts").exists()


@dataclasses.dataclass(frozen=True)
class Phase:
    """When the signal is sent, and what makes the phase long enough to meet it."""

    has_come: Callable[[int, Path], bool]
    words: tuple[str, ...] = ()
    saves: bool = False


PHASES = {
    "import": Phase(maps_jax),
    "compilation": Phase(is_built),
    "warm-up": Phase(is_built, PROMPTS),
    "step": Phase(made_step, MANY_STEPS, saves=True),
    "evaluation": Phase(made_two_steps, LONG_EVALUATION, saves=True),
    "saving": Phase(saves, (*MANY_STEPS, "checkpoint.every_steps=1"), saves=True),
    "export": Phase(writes_artifacts, ("artifacts.preset=true",), saves=True),
}
BY_DEFAULT = ("evaluation", "export")


def signal_in(phase, runs):
    """Return exit code and output of a run that gets SIGTERM in a phase."""
    process = runs.start(*WORDS, *phase.words)
    while not phase.has_come(process.pid, runs.root / "run"):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in BY_DEFAULT else pytest.mark.slow)
        for name in PHASES
    ],
)
def test_sigterm_in_every_phase_is_83_and_the_run_goes_on(runs, name, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")  # compiling takes time
    phase = PHASES[name]
    code, output = signal_in(phase, runs)
    assert code == 83, output
    assert "preempted (exit code 83)" in output
    assert "Traceback" not in output
    directory = runs.root / "run"
    assert not (directory / "LOCK").exists()
    assert not (directory / "done.json").exists()
    done = max(runs.losses("run"), default=0)
    kept = {int(path.name) for path in (directory / "checkpoints").glob("[0-9]*")}
    assert (done in kept) == phase.saves
    monkeypatch.undo()
    last = max(done, STEPS)
    words = (*WORDS, *phase.words, f"trainer.num_train_steps={last}")
    words = {word.split("=", 1)[0]: word for word in words}.values()
    code, output = runs.finish(*words)
    assert code == 0, output
    assert list(runs.losses("run")) == list(range(1, last + 1))
    evaluated = [0, 2, 4] if name == "evaluation" else []
    assert list(runs.evaluations("run")) == evaluated
    kept = {int(path.name): path for path in (directory / "checkpoints").glob("[0-9]*")}
    for step in kept.keys() & set(evaluated):  # also where the evaluation was left
        record = json.loads((kept[step] / "record.json").read_text())
        assert record["loss"] == runs.evaluations("run")[step]
