"""What attention costs by length: all scores at once, and block by block.

Turns sequences of several lengths, always of as many tokens together, into time and
memory of a forward and a backward pass for a global layer, two local ones and a global
one over packed rows. Programs of one length run in turns and the cheapest run of each
counts; memory is what the compiler reserves beside arguments and results. It knows one
CPU: kernels for TPUs and GPUs are not measured here.

    python tests/benchmarks/attention.py [--rounds 5] [--out DIRECTORY]
"""

import argparse
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from in_turns import Cost, Program, compiled, measure
from machine import machine_facts, sentence

from gemma.attention import Sight, see
from gemma.attention.blocked import LARGEST_BLOCK, attend_blocked
from gemma.attention.whole import attend_whole

RESULTS = pathlib.Path(__file__).parent / "results"
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
TOKENS = 4096
ROW = 64  # tokens of a packed row
HEADS, KV_HEADS, HEAD_DIM, SOFT_CAP = 8, 4, 64, 50.0  # the Gemma 2 shape of peers.md
LAYERS = ("global", "window 1024", "window 512", f"global, rows of {ROW}")
PATHS = {"whole": attend_whole, "blocked": attend_blocked}
NOT_MEASURED = (
    "Splash on TPUs and cuDNN on GPUs are not measured: no such device was at hand.",
    "Splash compiles ahead of time for TPUs (`make test-tpu-aot`).",
)


def layer_sight(layer: str, length: int) -> Sight:
    """Return what the queries of a layer see."""
    places = jnp.arange(length, dtype="int32")
    rows = places // ROW if layer.endswith(f"rows of {ROW}") else 0 * places
    window = int(layer.split()[1]) if layer.startswith("window") else None
    return see(window, jnp.broadcast_to(rows, (TOKENS // length, length)))


def compile_layer(path: Callable, layer: str, length: int) -> Program:
    """Compile mix and gradients of one layer, and make its arguments."""
    keys = jax.random.split(jax.random.key(0), 4)
    counts = (HEADS, KV_HEADS, KV_HEADS, HEADS)
    inputs = [
        jax.random.normal(key, (TOKENS // length, length, count, HEAD_DIM))
        for key, count in zip(keys, counts, strict=True)
    ]
    sight = layer_sight(layer, length)

    def both(
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        upstream: jax.Array,
        segments: jax.Array,
    ) -> tuple[jax.Array, ...]:
        seen = sight._replace(segments=segments)
        mixed, back = jax.vjp(
            lambda *x: path(*x, seen, soft_cap=SOFT_CAP), query, key, value
        )
        return mixed, *back(upstream)

    return compiled(both, *inputs, sight.segments)


def measure_all(rounds: int) -> list[dict]:
    """Return a row for every layer and length."""
    rows = []
    for layer in LAYERS:
        for length in LENGTHS:
            programs = {
                name: compile_layer(path, layer, length) for name, path in PATHS.items()
            }
            costs = measure(programs, rounds)
            rows.append(
                {"layer": layer, "length": length}
                | {name: cost._asdict() for name, cost in costs.items()}
            )
            print(rows[-1], flush=True)
    return rows


def page(facts: dict, rows: list[dict]) -> str:
    """Return the result as Markdown."""
    lines = ["# Attention by length", "", sentence(facts), "", *_about(facts["rounds"])]
    for layer in LAYERS:
        lines += [
            "",
            f"## {layer.capitalize()}",
            "",
            "| length | whole | blocked | ratio | whole | blocked | ratio |",
            "| --: | --: | --: | --: | --: | --: | --: |",
        ]
        lines += [_line(row) for row in rows if row["layer"] == layer]
    lines += ["", *NOT_MEASURED, "", "    python tests/benchmarks/attention.py", ""]
    return "\n".join(lines)


def _about(rounds: int) -> list[str]:
    return [
        f"Forward and backward of one layer: {TOKENS} tokens in sequences of a length,",
        f"{HEADS} heads of {HEAD_DIM} over {KV_HEADS}, soft cap, float32, segment ids.",
        "`whole` keeps all scores at once, which is how every layer attended before;",
        f"`blocked` takes blocks of {LARGEST_BLOCK} places and what they see, and is",
        "`whole` up to that length. Time is processor time of all cores, the least",
        f"of {rounds} runs in turns; memory is what a program reserves beside its",
        "arguments and results. Each line does the work of as many tokens: a column",
        "that stays flat grows with the tokens, one that doubles from line to line",
        "with their square.",
    ]


def _line(row: dict) -> str:
    whole, blocked = Cost(**row["whole"]), Cost(**row["blocked"])
    return (
        f"| {row['length']} | {whole.processor_ms:.0f} ms | "
        f"{blocked.processor_ms:.0f} ms | "
        f"{blocked.processor_ms / whole.processor_ms:.2f} | {whole.mib:.0f} MiB | "
        f"{blocked.mib:.0f} MiB | {blocked.mib / whole.mib:.2f} |"
    )


def main() -> None:
    """Measure, and write the page and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args()
    facts = machine_facts() | {"rounds": arguments.rounds}
    rows = measure_all(arguments.rounds)
    numbers = {"machine": facts, "rows": rows}
    (arguments.out / "attention.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (arguments.out / "attention.md").write_text(page(facts, rows))


if __name__ == "__main__":
    main()
