"""Our training step against transformers with peft and KerasHub, on one GPU.

Turns shapes of Gemma 2, ways to compute them and batch sizes into tokens a second,
share of the chip's peak and memory, in `tests/benchmarks/results/gpu.md` and
`gpu.json`. Every subject tries each of its ways and batch sizes, in a process of its
own; of those that fit the fastest counts. A trial that is measured replaces its own
figures in the file, so that the table can be made in several sittings:

    make bench-gpu
    python tests/benchmarks/gpu.py --presets gemma2_9b_en --subjects ours --batches 1

The others are expected in `.venv-peers`, or where `--peers` says.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parent
for place in (FOLDER, FOLDER.parents[1]):
    sys.path.insert(0, str(place))

from comparison import markdown_table  # noqa: E402
from machine import machine_facts, sentence  # noqa: E402
from peers import OURS, PEERS_PYTHON, TITLES, run_child  # noqa: E402
from workload import Workload  # noqa: E402

from gemma.config import GemmaConfig  # noqa: E402
from gemma.lora import lora_settings  # noqa: E402
from gemma.presets import open_preset  # noqa: E402
from trainer.distribution.chips import chip_of  # noqa: E402
from trainer.model.flops import StepFlops  # noqa: E402

PRESETS = ("gemma2_2b_en", "gemma2_9b_en")
SEQUENCE_LENGTH, ROW_TOKENS = 4096, 1024
BATCHES = (1, 4)
WAYS: Mapping[str, Sequence[Mapping[str, str]]] = {
    OURS: ({"remat": "attention"}, {"remat": "block"}),
    "transformers_peft": (
        {"attention": "flex_attention", "remat": "none"},
        {"attention": "flex_attention", "remat": "block"},
        {"attention": "eager", "remat": "block"},
    ),
    "keras_hub": ({},),
}
COLUMNS = ("tokens/s, median", "of the peak", "device memory", "first step")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One subject, computed in one way, on batches of one size."""

    preset: str
    subject: str
    way: Mapping[str, str]
    batch_size: int
    sequence_length: int = SEQUENCE_LENGTH

    @property
    def name(self) -> str:
        """What the results are filed under."""
        words = [f"{key}={value}" for key, value in self.way.items()]
        shape = f"{self.batch_size}x{self.sequence_length}"
        return " ".join([self.preset, self.subject, shape, *words])

    def workload(self) -> Workload:
        """Return dimensions and batch, packed with rows."""
        config = dimensions(self.preset)
        return Workload(
            vocabulary_size=config.vocabulary_size,
            num_layers=config.num_layers,
            hidden_dim=config.hidden_dim,
            ffw_dim=config.ffw_dim,
            num_query_heads=config.num_query_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            sliding_window_size=config.sliding_window_size,
            sequence_length=self.sequence_length,
            batch_size=self.batch_size,
            dtype="bfloat16",
            row_tokens=ROW_TOKENS,
        )


def dimensions(preset: str) -> GemmaConfig:
    """Return a preset's dimensions."""
    return open_preset(preset).config


def trials(
    presets: Sequence[str],
    subjects: Sequence[str],
    batches: Sequence[int],
    sequence_length: int = SEQUENCE_LENGTH,
) -> list[Trial]:
    """Return what is to be measured; subjects take turns."""
    return [
        Trial(
            preset=preset,
            subject=subject,
            way=way,
            batch_size=batch_size,
            sequence_length=sequence_length,
        )
        for preset in presets
        for batch_size in batches
        for subject in subjects
        for way in WAYS[subject]
    ]


def measure(trial: Trial, *, python: str, steps: int, platform: str) -> dict[str, Any]:
    """Run a trial; one that does not fit or start says why in `failed`."""
    workload = trial.workload()
    result = run_child(
        trial.subject,
        workload,
        python=python,
        steps=steps,
        options=trial.way,
        platform=platform,
    )
    shown = dataclasses.asdict(trial)
    if "failed" in result:
        return shown | result
    seconds = statistics.median(result["step_seconds"])
    flops = StepFlops(
        config=dimensions(trial.preset), lora=lora_settings(workload.lora_rank)
    ).of(
        lengths=workload.row_lengths * trial.batch_size,
        loss_tokens=workload.tokens_per_step,
    )
    chip = chip_of(result.get("device_kind", ""))
    return shown | {
        "tokens_per_second": workload.tokens_per_step / seconds,
        "mfu": flops / seconds / chip.peak_flops_per_second if chip else None,
        **result,
    }


def best(results: Sequence[Mapping[str, Any]], subject: str) -> Mapping[str, Any]:
    """Return a subject's fastest trial, or one that failed where all did."""
    own = [result for result in results if result["subject"] == subject]
    return max(own, key=lambda result: result.get("tokens_per_second", 0.0))


def report(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page that is committed."""
    parts = ["# On one GPU, against peers", _ABOUT]
    for preset in dict.fromkeys(result["preset"] for result in measured.values()):
        results = [r for r in measured.values() if r["preset"] == preset]
        parts += [f"## {preset}", _table(results), _compared(results)]
    return "\n\n".join([*parts, _machines(measured)]) + "\n"


def _machines(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return where each subject ran last, and what it was."""
    last = {r["subject"]: r for r in measured.values() if "versions" in r}
    return "\n".join(
        f"- {TITLES[name]}: {r['versions']}; {r.get('device_kind', 'no accelerator')}; "
        + sentence(r["machine"])
        for name, r in last.items()
    )


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            TITLES[r["subject"]],
            ", ".join(f"`{key}={value}`" for key, value in r["way"].items()),
            f"{r['batch_size']} x {r['sequence_length']}",
            *_cells(r),
        ]
        for r in results
    ]
    header = ["subject", "way", "batch", *COLUMNS]
    return markdown_table(header, rows, text_columns=(0, 1, 2))


def _cells(result: Mapping[str, Any]) -> list[str]:
    if "failed" in result:
        return [f"did not run: {result['failed'][:80]}", "", "", ""]
    mfu, held = result["mfu"], result.get("device_peak_bytes")
    return [
        f"{result['tokens_per_second']:,.0f}",
        "" if mfu is None else f"{mfu:.1%}",
        "" if held is None else f"{held / 2**30:.1f} GiB",
        f"{result['first_step_seconds']:.0f} s",
    ]


def _compared(results: Sequence[Mapping[str, Any]]) -> str:
    subjects = dict.fromkeys(result["subject"] for result in results)
    rates = {
        name: best(results, name)["tokens_per_second"]
        for name in subjects
        if "tokens_per_second" in best(results, name)
    }
    own = rates.pop(OURS, None)
    if own is None or not rates:
        return ""
    name, rate = max(rates.items(), key=lambda item: item[1])
    return f"Ours over the best peer, {TITLES[name]}: {own / rate:.2f} times."


_ABOUT = f"""LoRA rank 8 on query and value, bfloat16 weights with float32 adapters
(KerasHub: bfloat16), AdamW, random weights, loss on every position, soft caps 50 and
30. Sequences are packed with rows of {ROW_TOKENS} tokens; KerasHub knows no rows and
attends over the whole sequence. `of the peak` counts what must be computed
(`trainer.model.flops`) against the chip's dense bfloat16 peak; tokens/s is of the
median step after the first."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--subjects", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--sequence-length", type=int, default=SEQUENCE_LENGTH)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peers", default=str(PEERS_PYTHON), metavar="INTERPRETER")
    parser.add_argument(
        "--platform", default="cuda", help="of JAX: cuda, or cpu to try"
    )
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER / "results")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write both files, and return 1 where our own subject failed."""
    words = parse(sys.argv[1:] if arguments is None else arguments)
    words.out.mkdir(parents=True, exist_ok=True)
    file = words.out / "gpu.json"
    measured = json.loads(file.read_text()) if file.exists() else {}
    chosen = trials(words.presets, words.subjects, words.batches, words.sequence_length)
    for trial in chosen:
        python = sys.executable if trial.subject == OURS else words.peers
        result = measure(
            trial, python=python, steps=words.steps, platform=words.platform
        )
        measured[trial.name] = result | {"machine": machine_facts()}
        print(f"{trial.name}: {', '.join(filter(None, _cells(result)))}", flush=True)
        file.write_text(json.dumps(measured, indent=1) + "\n")
        (words.out / "gpu.md").write_text(report(measured))
    own = [measured[t.name] for t in chosen if t.subject == OURS]
    return int(any(map(_is_broken, own)))


def _is_broken(result: Mapping[str, Any]) -> bool:
    """Whether a trial failed for another reason than memory."""
    return "failed" in result and "RESOURCE_EXHAUSTED" not in result["failed"]


if __name__ == "__main__":
    sys.exit(main())
