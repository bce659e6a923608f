"""The real Gemma 3 270M on 320 WordNet rows through the command line, against TRL.

Turns whole trainings into rows a second, peak memory and held-out losses, in
`tests/benchmarks/results/wordnet_270m.md` and `.json`. Each subject is a process of its
own, rounds are interleaved, and each has its own seed: what differs between its losses
is how the first factors are drawn. Packed, the same rows are one pass of sequences with
as many rows as fit, one sequence a step: as many updates on as many rows as unpacked.

    python tests/benchmarks/wordnet_270m.py DIRECTORY [--trl DIR/bin/python]

DIRECTORY is what `tests/tools/real_gemma3.py` writes; its weights are under the Gemma
Terms of Use.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
for place in (FOLDER, REPOSITORY):
    sys.path.insert(0, str(place))

from comparison import markdown_table  # noqa: E402
from machine import OtherWork, machine_facts, sentence  # noqa: E402
from peers import UNSET, last_line  # noqa: E402
from wordnet_rows import (  # noqa: E402
    COUNTS,
    SEQUENCE_LENGTH,
    SETTINGS,
    write_rows,
)

ROWS, HELD_OUT_ROWS = COUNTS["train"], COUNTS["heldout"]
TITLES = {
    "unpacked": "this project, 8 rows a step",
    "packed": "this project, packed",
    "trl": "TRL `SFTTrainer` with peft, 8 rows a step",
}
OF_THE_COMMAND = ("seconds", "processor_seconds", "other_cores")
COLUMNS = (
    "rows/s, all steps",
    "rows/s, after the first step",
    "peak memory",
    "held-out loss",
    "content alone",
    "whole command",
)


def overrides(
    subject: str, directory: str, place: pathlib.Path, packs: int
) -> list[str]:
    """Return the words of the command line of one of our own subjects."""
    words = [
        "+preset=gemma3_270m",
        f"preset.name={directory}",
        "preset.dtype=float32",
        f"lora.rank={SETTINGS['rank']}",
        f"lora.alpha={SETTINGS['alpha']}",
        f"optimizer.learning_rate={SETTINGS['learning_rate']}",
        "data.shuffle=false",
        f"data.sequence_length={SEQUENCE_LENGTH}",
        f"data.eval_rows={HELD_OUT_ROWS}",
        "trainer.sample_prompts=0",
        "trainer.compilation_cache=none",
        "artifacts.preset=false",
        f"run.root={place}",
        f"run.name={subject}",
    ]
    if subject == "unpacked":
        steps, size = SETTINGS["steps"], SETTINGS["rows_per_step"]
        words += ["data.pack=false"]
    else:
        steps, size = packs, 1
        words += [
            "data=jsonl",
            f"data.path={place / 'train.jsonl'}",
            f"data.eval_path={place / 'heldout.jsonl'}",
            "data.pack=true",
        ]
    return [
        *words,
        f"trainer.global_batch_size={size}",
        f"trainer.num_train_steps={steps}",
        f"trainer.eval_every_steps={steps}",
    ]


def run_ours(
    subject: str, directory: str, packs: int, more: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """Train once through the command line; return what `metrics.jsonl` says.

    Raises:
        RuntimeError: The command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        write_rows(directory, place)
        words = [*overrides(subject, directory, place, packs), f"seed={seed}", *more]
        finished = timed([sys.executable, "-m", "trainer", *words])
        if finished["failed"]:
            raise RuntimeError(f"{subject} ended with {finished['failed']}")
        lines = (place / subject / "metrics.jsonl").read_text().splitlines()
    kept = {name: finished[name] for name in (*OF_THE_COMMAND, "peak_bytes")}
    metrics = [json.loads(line) for line in lines]
    return {**read_metrics(subject, metrics), "seed": seed, **kept}


def read_metrics(subject: str, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return seconds, rows and losses of a run.

    Raises:
        RuntimeError: The run saw more or fewer rows than it should.
    """
    steps = [line for line in metrics if "train/step_seconds" in line]
    if steps[-1]["train/rows_seen"] != ROWS:
        seen = steps[-1]["train/rows_seen"]
        raise RuntimeError(f"{subject} saw {seen} rows, expected {ROWS}")
    losses = [line for line in metrics if "eval/loss" in line]
    return {
        "step_seconds": [line["train/step_seconds"] for line in steps],
        "first_rows": steps[0]["train/rows_seen"],
        "rows": ROWS,
        "loss_before": losses[0]["eval/loss"],
        "content_loss_before": losses[0]["eval/content_loss"],
        "loss": losses[-1]["eval/loss"],
        "content_loss": losses[-1]["eval/content_loss"],
    }


def run_trl(python: str, directory: str, *, seed: int) -> dict[str, Any]:
    """Train once with TRL; a peer that cannot run gives `failed`."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        write_rows(directory, place)
        script = FOLDER / "subjects/wordnet_trl.py"
        rows, output = str(place / "rows.json"), str(place / "output")
        finished = timed([python, str(script), directory, rows, output, str(seed)])
    if finished["failed"]:
        return {"failed": finished["failed"]}
    result = json.loads(last_line(finished["output"]))
    kept = {name: finished[name] for name in OF_THE_COMMAND}
    first_rows = SETTINGS["rows_per_step"]
    return {**result, "seed": seed, "first_rows": first_rows, **kept}


def timed(command: Sequence[str]) -> dict[str, Any]:
    """Run a command; return its output, seconds, peak memory, and why it failed."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    others, start = OtherWork(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**kept, "JAX_PLATFORMS": "cpu"},
            stdout=output,
            stderr=errors,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        output.seek(0)
        errors.seek(0)
        said, complaint = output.read(), errors.read()
    return {
        "output": said,
        "failed": last_line(complaint) or f"exit code {code}" if code else "",
        "seconds": seconds,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "other_cores": others.cores(),
    }


def rows_per_second(result: Mapping[str, Any]) -> tuple[float, float]:
    """Return the rate over all steps, and over those after the first."""
    seconds = result["step_seconds"]
    later = result["rows"] - result["first_rows"]
    return result["rows"] / sum(seconds), later / sum(seconds[1:])


def report(
    facts: Mapping[str, Any],
    measured: Mapping[str, Sequence[Mapping[str, Any]]],
    packs: int,
    more: Sequence[str],
) -> str:
    """Return the page that is committed."""
    rows = [[TITLES[name], *_cells(rounds)] for name, rounds in measured.items()]
    rounds = [r for results in measured.values() for r in results if "failed" not in r]
    before = next((r for r in rounds if "loss_before" in r), None)
    parts = ["# The real Gemma 3 270M on WordNet rows", sentence(dict(facts))]
    parts.append(_setting(packs, before))
    if more:
        parts.append(f"This project ran with `{' '.join(more)}` too.")
    parts.append(markdown_table(["subject", *COLUMNS], rows))
    cores = [r["other_cores"] for r in rounds if r["other_cores"] is not None]
    if cores:
        parts.append(f"Other processes used {max(cores):.2f} cores in a run at most.")
    versions = {r["versions"] for r in rounds if "versions" in r}
    parts += [f"TRL: {text}." for text in versions]
    return "\n\n".join(parts) + "\n"


def _cells(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    failed = next((r["failed"] for r in rounds if "failed" in r), None)
    if failed is not None:
        return [f"did not run: {failed}", *[""] * (len(COLUMNS) - 1)]
    whole, later = zip(*map(rows_per_second, rounds), strict=True)
    return [
        f"{statistics.median(whole):.2f}",
        f"{statistics.median(later):.2f} ({min(later):.2f} to {max(later):.2f})",
        f"{_median(rounds, 'peak_bytes') / 1e9:.2f} GB",
        _spread(rounds, "loss"),
        _spread(rounds, "content_loss"),
        f"{_median(rounds, 'seconds'):.0f} s",
    ]


def _median(rounds: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.median(result[name] for result in rounds)


def _spread(rounds: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [result[name] for result in rounds]
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _setting(packs: int, before: Mapping[str, Any] | None) -> str:
    s = SETTINGS
    text = (
        f"{ROWS} rows in file order as chat turns, LoRA rank {s['rank']} (alpha "
        f"{s['alpha']}) on query and value, AdamW {s['learning_rate']:g} constant, "
        f"gradients clipped to norm 1, float32, CPU. Unpacked, {s['steps']} steps of "
        f"{s['rows_per_step']} rows; packed, {packs} steps of one sequence of "
        f"{SEQUENCE_LENGTH} tokens, the same rows. Losses are nats a token over "
        f"content and `<end_of_turn>` of the first {HELD_OUT_ROWS} held-out rows."
    )
    if before is not None:
        text += (
            f" Before training they are {before['loss_before']:.3f} and "
            f"{before['content_loss_before']:.3f} without the latter."
        )
    return text + (
        "\n\nThe rate over all steps has the first one in it; this project compiles "
        "before that, from no cache. The whole command has compilation, imports, "
        "loading and evaluation. Peak memory is the largest resident size, TRL's "
        "before its evaluation. Medians of the rounds, each with a seed of its own for "
        "the first factors."
    )


def main() -> int:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="of the real Gemma 3 270M")
    parser.add_argument("--trl", metavar="PYTHON", help="interpreter that has TRL")
    parser.add_argument("--subjects", nargs="+", default=list(TITLES), choices=TITLES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER / "results")
    words = parser.parse_args()
    directory, facts = os.path.abspath(words.directory), machine_facts()
    with tempfile.TemporaryDirectory() as place:
        packs = write_rows(directory, pathlib.Path(place))
    subjects = [s for s in words.subjects if s != "trl" or words.trl]
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects}
    for index in range(words.rounds):
        for subject in subjects:
            if subject == "trl":
                result = run_trl(words.trl, directory, seed=index)
            else:
                result = run_ours(subject, directory, packs, words.ours, seed=index)
            measured[subject].append(result)
            print(f"round {index + 1}, {subject}: {_cells([result])}", flush=True)
    page = report(facts, measured, packs, words.ours)
    words.output.mkdir(parents=True, exist_ok=True)
    (words.output / "wordnet_270m.md").write_text(page)
    raw = {"machine": facts, "packs": packs, "ours": words.ours, "measured": measured}
    (words.output / "wordnet_270m.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(page)
    return int(any("failed" in r for rounds in measured.values() for r in rounds))


if __name__ == "__main__":
    sys.exit(main())
