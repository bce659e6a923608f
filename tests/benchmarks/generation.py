"""`generate` against KerasHub and transformers, Gemma 3 270M's shape, on a CPU.

Turns one workload into a table of new tokens a second, in
`tests/benchmarks/results/generation.md` and `generation.json`. Each subject runs in a
process of its own, and rounds are interleaved, as in `peers.py`.

    python tests/benchmarks/generation.py --python generate_keras_hub=DIR/bin/python \
        --python generate_transformers=DIR/bin/python
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER))

from comparison import markdown_table, ratios, summary, summary_cells  # noqa: E402
from generation_workload import GenerationWorkload  # noqa: E402
from machine import machine_facts, sentence  # noqa: E402
from peers import PEERS_PYTHON, run_child  # noqa: E402

OURS = "generate_ours"
TITLES = {
    OURS: "this project, `Gemma3CausalLM`",
    "generate_keras_hub": "KerasHub `Gemma3CausalLM`",
    "generate_transformers": "transformers `Gemma3ForCausalLM`",
}
FLOOR = "read_weights"
COLUMNS = (
    "new tokens/s, median",
    "range",
    "peak memory",
    "first text after",
    "import",
    "processor time a call",
)

Measured = Mapping[str, Sequence[Mapping[str, Any]]]


def measure(
    workload: GenerationWorkload,
    *,
    rounds: int,
    steps: int,
    pythons: Mapping[str, str],
) -> dict[str, list[dict[str, Any]]]:
    """Run every subject once a round, one after the other."""
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in TITLES}
    for index in range(rounds):
        for subject in TITLES:
            python = pythons.get(subject, sys.executable)
            result = run_child(
                subject, workload, python=python, steps=steps, options={}
            )
            measured[subject].append(result)
            told = summary_cells(summary([result], workload.tokens_per_step))
            print(f"round {index + 1}, {subject}: {', '.join(told)}", flush=True)
    return measured


def report(
    facts: Mapping[str, Any],
    workload: GenerationWorkload,
    measured: Measured,
    floor: Mapping[str, Any],
) -> str:
    """Return the page that is committed."""
    tokens = workload.tokens_per_step
    rows = [
        [TITLES[name], *summary_cells(summary(rounds, tokens)), _busy(rounds)]
        for name, rounds in measured.items()
    ]
    parts = ["# Generation against peers", sentence(dict(facts)), _setting(workload)]
    parts.append(markdown_table(["subject", *COLUMNS], rows))
    parts.append("\n".join(_compared(measured, tokens)))
    parts.append(_memory(workload, floor))
    cores = [r.get("other_cores") for rounds in measured.values() for r in rounds]
    known = [busy for busy in cores if busy is not None]
    if known:
        parts.append(f"Other processes used {max(known):.2f} cores in a run at most.")
    parts.append("\n".join(["Versions:", "", *_versions(measured)]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting(w: GenerationWorkload) -> str:
    return (
        f"Gemma 3 270M's shape with random weights: {w.num_layers} layers, hidden "
        f"{w.hidden_dim}, feed-forward {w.ffw_dim}, {w.num_query_heads} heads over "
        f"{w.num_key_value_heads} of {w.head_dim}, vocabulary {w.vocabulary_size:,}, "
        f"window {w.sliding_window_size}. Batch {w.batch_size}, prompts of "
        f"{w.prompt_length} ids and {w.new_tokens} new ones each, greedy, no stop, "
        f"{w.dtype}, CPU.\n\n"
        "Each run is a process of its own, rounds interleaved, no compilation cache. "
        "`new tokens/s` is of a run's median call after the first, prefill included; "
        "`first text after` counts from the start of the process; peak memory is its "
        "largest resident size; processor time is the sum over cores. Ratios are "
        "medians of the rounds' ratios."
    )


def _busy(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return the processor time of a call, which other work slows less."""
    if any("failed" in result for result in rounds):
        return ""
    medians = [statistics.median(r["step_processor_seconds"]) for r in rounds]
    return f"{statistics.median(medians):.1f} s"


def _compared(measured: Measured, tokens: int) -> list[str]:
    lines = []
    for name, rounds in measured.items():
        pair = {OURS: measured[OURS], name: rounds}
        found = ratios(pair, tokens, ours=OURS) if name != OURS else {}
        if found:
            lines.append(
                f"- against {TITLES[name]}: {found['tokens_per_second']:.2f} times the "
                f"tokens/s, {found['peak_bytes']:.2f} times the memory"
            )
    return lines


def _memory(w: GenerationWorkload, floor: Mapping[str, Any]) -> str:
    """Say what reading the weights once a step would leave, were it all."""
    if "failed" in floor:
        return ""
    size, seconds = 4 * w.weight_count, statistics.median(floor["step_seconds"])
    return (
        f"A step reads {size / 1e9:.2f} GB of weights. A sum over as many bytes takes "
        f"{seconds * 1e3:.1f} ms here ({size / seconds / 1e9:.0f} GB/s): without "
        f"prompts and without arithmetic, memory would allow "
        f"{w.batch_size / seconds:,.0f} tokens/s. `generation_profile.md` says what "
        "takes the rest."
    )


def _versions(measured: Measured) -> list[str]:
    return [
        f"- {TITLES[name]}: {rounds[0]['versions']}"
        for name, rounds in measured.items()
        if rounds and "versions" in rounds[0]
    ]


def main() -> int:
    """Measure, write both files, and return 1 where our own subject failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed calls of a run")
    parser.add_argument(
        "--python", action="append", default=[], metavar="SUBJECT=INTERPRETER"
    )
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER / "results")
    words = parser.parse_args()
    pythons = {name: str(PEERS_PYTHON) for name in TITLES if name != OURS}
    pythons |= dict(word.split("=", 1) for word in words.python)
    workload, facts = GenerationWorkload(), machine_facts()
    floor = run_child(FLOOR, workload, python=sys.executable, steps=20, options={})
    measured = measure(
        workload, rounds=words.rounds, steps=words.steps, pythons=pythons
    )
    words.output.mkdir(parents=True, exist_ok=True)
    page = report(facts, workload, measured, floor)
    (words.output / "generation.md").write_text(page)
    raw = {"machine": facts, "measured": measured, "floor": floor}
    (words.output / "generation.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(page)
    return int(any("failed" in run for run in measured[OURS]))


if __name__ == "__main__":
    sys.exit(main())
