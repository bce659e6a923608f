"""How the time to compile a step grows with the layers: 12, 24 and 48 of them.

Turns rounds of fresh processes, interleaved, into medians and their ratio to the
smallest, in `results/compile_time.md` and its JSON.

    python tests/benchmarks/compile_time.py [--rounds 3] [--out DIRECTORY]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from comparison import markdown_table  # noqa: E402
from machine import machine_facts, sentence  # noqa: E402

HERE = pathlib.Path(__file__).parent
CHILD = HERE / "subjects" / "compiled_layers.py"
LAYERS = (12, 24, 48)


def measure(layers: int) -> dict[str, float]:
    """Compile a step in a process of its own, without a compilation cache."""
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, str(CHILD), str(layers)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def report(facts: dict, measured: dict[int, list[dict[str, float]]]) -> str:
    """Return the page."""

    def median(layers: int, key: str) -> float:
        return statistics.median(result[key] for result in measured[layers])

    def seconds(layers: int, key: str) -> list[str]:
        value = median(layers, key)
        return [f"{value:.2f} s", f"{value / median(least, key):.3f}"]

    least = min(measured)
    rows = [
        [
            str(layers),
            *seconds(layers, "seconds"),
            *seconds(layers, "processor_seconds"),
            f"{median(layers, 'lines'):,.0f}",
        ]
        for layers in sorted(measured)
    ]
    header = ["layers", "lowered and compiled", f"over {least}", "processor"]
    header += [f"over {least}", "lines of StableHLO"]
    rounds = len(measured[least])
    table = markdown_table(header, rows, text_columns=())
    how = f"Medians of {rounds} rounds, interleaved. {sentence(facts)}"
    return "\n".join([_INTRODUCTION, table, "", how, ""])


def main() -> None:
    """Compile in rounds and write `compile_time.json` and `compile_time.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    words = parser.parse_args()
    facts = machine_facts()
    measured: dict[int, list[dict[str, float]]] = {layers: [] for layers in LAYERS}
    for _ in range(words.rounds):
        for layers in LAYERS:
            measured[layers].append(measure(layers))
    raw = {"machine": facts, "measured": measured}
    text = json.dumps(raw, indent=2, sort_keys=True) + "\n"
    (words.out / "compile_time.json").write_text(text)
    (words.out / "compile_time.md").write_text(report(facts, measured))
    print(report(facts, measured))


_INTRODUCTION = """# Time to compile a step, by layers

LoRA on a Gemma 2 of width 512 and 32,000 pieces, 4 x 256 tokens, float32, on the CPU,
each time in a fresh process without a compilation cache. The scan makes one program of
any number of layers. `tests/benchmarks/compile_time.py` measures again.
"""


if __name__ == "__main__":
    main()
