"""Our training step against KerasHub's, Tunix's and peft's on one shape, on a CPU.

Turns workloads into a table of tokens a second, peak memory and times, in
`tests/benchmarks/results/peers.md` and `peers.json`. Each subject runs in a process of
its own, and rounds are interleaved (A B C A B C), so that a machine that changes its
pace changes everyone's.

    make bench
    python tests/benchmarks/peers.py --python tunix=DIR/bin/python

The others are expected in `.venv-peers`; google-tunix wants a place of its own.

Nothing else should run meanwhile: two cores busy elsewhere halve every figure.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
sys.path.insert(0, str(FOLDER))

from comparison import markdown_table, ratios, summary, summary_cells  # noqa: E402
from generation_workload import GenerationWorkload  # noqa: E402
from machine import OtherWork, machine_facts, sentence  # noqa: E402
from workload import Workload  # noqa: E402

OURS = "ours"
TITLES = {
    OURS: "this project",
    "keras_hub": "KerasHub `train_on_batch`",
    "tunix": "Tunix `PeftTrainer`",
    "transformers_peft": "transformers with peft",
}
STEPS = {32_000: 10, 256_000: 5}
PEERS_PYTHON = REPOSITORY / ".venv-peers/bin/python"
UNSET = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "NPROC", "KERAS_BACKEND")
COLUMNS = ("tokens/s, median", "range", "peak memory", "first step after", "import")


def run_child(
    subject: str,
    workload: Workload | GenerationWorkload,
    *,
    python: str,
    steps: int,
    options: Mapping[str, str],
    platform: str = "cpu",
) -> dict[str, Any]:
    """Measure one subject once; a subject that cannot run gives `failed`."""
    command = [python, str(FOLDER / "child.py"), subject]
    command += [json.dumps(dataclasses.asdict(workload))]
    command += ["--kind", type(workload).__name__]
    command += ["--steps", str(steps), "--options", json.dumps(dict(options))]
    if not pathlib.Path(python).exists():
        return {"failed": "its interpreter is missing; see --python"}
    start, others = time.time(), OtherWork()
    environment = _environment() | {"JAX_PLATFORMS": platform}
    done = subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True
    )
    if done.returncode:
        return {"failed": last_line(done.stderr) or f"exit code {done.returncode}"}
    result = json.loads(last_line(done.stdout))
    seconds = result.pop("first_step_at") - start
    return {**result, "seconds_to_first_step": seconds, "other_cores": others.cores()}


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _environment() -> dict[str, str]:
    """Return an environment in which nothing is cached."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}


def measure_all(
    workload: Workload,
    subjects: Sequence[str],
    *,
    rounds: int,
    steps: int,
    pythons: Mapping[str, str],
    options: Mapping[str, str],
) -> dict[str, list[dict[str, Any]]]:
    """Run every subject once a round, one after the other."""
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects}
    for index in range(rounds):
        for subject in subjects:
            result = run_child(
                subject,
                workload,
                python=pythons.get(subject, sys.executable),
                steps=steps,
                options=options if subject == OURS else {},
            )
            measured[subject].append(result)
            print(
                f"round {index + 1}, {subject}: {_told(result, workload)}", flush=True
            )
    return measured


def _told(result: Mapping[str, Any], workload: Workload) -> str:
    values = summary([result], workload.tokens_per_step)
    return ", ".join(cell for cell in summary_cells(values) if cell)


def report(
    facts: Mapping[str, Any],
    measured: Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]],
    options: Mapping[str, str],
) -> str:
    """Return the page that is committed."""
    workload = Workload(vocabulary_size=0)
    parts = ["# Against peers, on the same shape", sentence(dict(facts)), _setting()]
    if options:
        parts.append(f"This project ran with {_words(options)}.")
    for vocabulary_size, subjects in measured.items():
        tokens = workload.tokens_per_step
        rows = [
            [TITLES.get(name, name), *summary_cells(summary(rounds, tokens))]
            for name, rounds in subjects.items()
        ]
        parts.append(f"## Vocabulary {vocabulary_size:,}")
        parts.append(markdown_table(["subject", *COLUMNS], rows))
        parts.append(_compared(subjects, vocabulary_size))
    parts += [_disturbance(measured), _versions(measured)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting() -> str:
    w = Workload(vocabulary_size=0)
    return (
        f"Gemma 2 shape: {w.num_layers} layers, hidden {w.hidden_dim}, feed-forward "
        f"{w.ffw_dim} a branch (`intermediate_dim` {2 * w.ffw_dim}), "
        f"{w.num_query_heads} heads over {w.num_key_value_heads} of {w.head_dim}, post "
        f"norms, soft caps {w.attention_logit_soft_cap:g} and "
        f"{w.final_logit_soft_cap:g}, every other layer in a window of "
        f"{w.sliding_window_size}; random weights. Batch {w.batch_size} x "
        f"{w.sequence_length}, loss on every position, LoRA rank {w.lora_rank} on "
        f"query and value (Tunix: and key, which is one weight with value there; its "
        f"own loss leaves out each sequence's last position), AdamW "
        f"{w.learning_rate:g} without weight decay or clipping, {w.dtype}, CPU.\n\n"
        "Each run is a process of its own, rounds interleaved, no compilation cache. "
        "`tokens/s` is of a run's median step after the first; `first step after` "
        "counts from the start of the process; peak memory is its largest resident "
        "size. Ratios are medians of the rounds' ratios."
    )


def _compared(
    subjects: Mapping[str, Sequence[Mapping[str, Any]]], vocabulary_size: int
) -> str:
    workload = Workload(vocabulary_size=vocabulary_size)
    names = [name for name in subjects if name != OURS]
    against = {"the best peer": names} | {TITLES.get(n, n): [n] for n in names}
    lines = []
    for title, peers in against.items():
        chosen = {name: subjects[name] for name in (OURS, *peers) if name in subjects}
        values = ratios(chosen, workload.tokens_per_step, ours=OURS)
        if values:
            lines.append(
                f"- over {title}: {values['tokens_per_second']:.2f} times the "
                f"tokens/s, {values['peak_bytes']:.2f} times the memory"
            )
    must = f"A step must compute {workload.gigaflops_per_step:,.0f} GFLOP."
    return "\n".join(["Ours:", "", *lines, "", must]) if lines else ""


def _disturbance(
    measured: Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]],
) -> str:
    runs = [r for subjects in measured.values() for rs in subjects.values() for r in rs]
    cores = [r["other_cores"] for r in runs if r.get("other_cores") is not None]
    if not cores:
        return ""
    return f"Other processes used {max(cores):.2f} cores during a run at most."


def _versions(measured: Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    found = {
        name: rounds[0]["versions"]
        for subjects in measured.values()
        for name, rounds in subjects.items()
        if rounds and "versions" in rounds[0]
    }
    lines = [f"- {TITLES.get(name, name)}: {text}" for name, text in found.items()]
    return "\n".join(["Versions:", "", *lines]) if lines else ""


def _words(options: Mapping[str, str]) -> str:
    return ", ".join(f"`trainer.{name}={value}`" for name, value in options.items())


def _pairs(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", nargs="+", default=list(TITLES), choices=TITLES)
    parser.add_argument("--vocabulary", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, help="timed steps of a run, after the first"
    )
    parser.add_argument(
        "--python", action="append", default=[], metavar="SUBJECT=INTERPRETER"
    )
    parser.add_argument(
        "--ours", nargs="+", default=[], metavar="KEY=VALUE", help="of trainer.*"
    )
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER / "results")
    parser.add_argument("--name", default="peers", help="of the two files there")
    return parser.parse_args(arguments)


def main() -> int:
    """Measure, write both files, and return 1 where our own subject failed."""
    words = parse(sys.argv[1:])
    pythons = {name: str(PEERS_PYTHON) for name in TITLES if name != OURS}
    pythons |= _pairs(words.python)
    options, facts = _pairs(words.ours), machine_facts()
    measured = {
        size: measure_all(
            Workload(vocabulary_size=size),
            words.subjects,
            rounds=words.rounds,
            steps=words.steps or STEPS.get(size, 5),
            pythons=pythons,
            options=options,
        )
        for size in words.vocabulary
    }
    words.output.mkdir(parents=True, exist_ok=True)
    page = report(facts, measured, options)
    (words.output / f"{words.name}.md").write_text(page)
    raw = {"machine": facts, "options": options, "measured": measured}
    (words.output / f"{words.name}.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(page)
    own = [run for subjects in measured.values() for run in subjects.get(OURS, [])]
    return int(any("failed" in run for run in own))


if __name__ == "__main__":
    sys.exit(main())
