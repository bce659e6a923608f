"""Steps of large models, compiled for TPUs that are not here: do they fit?

Turns cases of model, batch, mesh and topology into the memory that the compiler counts
for each chip and the time that it takes, one process a case. Needs the extra `plan`; a
case replaces its row in `results/tpu_programs.json` and leaves the others. `--keep`
writes the programs too, for who wants to know why they need what they need.

    python tests/benchmarks/tpu_programs.py [--only NAME ...] [--out DIRECTORY]
                                            [--keep DIRECTORY] [--keras-hub PYTHON]

`--keras-hub` compiles the peer's step too, with an interpreter that has KerasHub and
libtpu.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from comparison import markdown_table  # noqa: E402
from machine import machine_facts, sentence  # noqa: E402

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
CHILD = HERE / "subjects" / "tpu_program.py"
KERAS_HUB, LAYERS = HERE / "subjects" / "tpu_keras_hub.py", (2, 8, 16, 42)
GIB, MIB = 2**30, 2**20
STATE = ("weights", "adapters", "optimizer")
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}


class Case(NamedTuple):
    """What is compiled, and for which chips.

    Attributes:
        work: In words.
        topology: As `plan.topology` takes it.
        chip_gib: Memory of one chip.
        words: Of the command line.
    """

    work: str
    topology: str
    chip_gib: int
    words: tuple[str, ...]


def case(work: str, topology: str, mesh: str, batch: str, *more: str) -> Case:
    """Return a case; `batch` is sequences x tokens of a step."""
    sequences, tokens = batch.split("x")
    step = (f"trainer.global_batch_size={sequences}", f"data.sequence_length={tokens}")
    kept = ("preset.dtype=bfloat16", "trainer.remat=block")
    return Case(
        f"{work}, {batch}",
        topology,
        {"v5e": 16, "v5p": 95}[topology.partition(":")[0]],
        (*more, f"mesh={mesh}", *kept, *step),
    )


NINE, LARGE = "preset=gemma2_9b_en", "preset=gemma2_27b_en"
CASES = {
    "lora_9b": case("9B, LoRA rank 8", "v5e:2x4", "1x8", "8x1024", NINE),
    "lora_9b_48": case("9B, LoRA rank 8", "v5e:2x4", "1x8", "48x1024", NINE),
    "lora_27b_v5e": case("27B, LoRA rank 8", "v5e:4x8", "4x8", "16x4096", LARGE),
    "lora_27b_v5p": case("27B, LoRA rank 8", "v5p:2x2x2", "1x8", "16x4096", LARGE),
    "qlora_27b": case(
        "27B, int4, LoRA rank 8",
        "v5e:2x4",
        "1x8",
        "16x4096",
        LARGE,
        "preset.quantize=int4",
    ),
    "full_9b": case("9B, all weights", "v5e:8x8", "8x8", "64x2048", NINE, "lora=none"),
}


def measure(chosen: Case, keep: pathlib.Path | None = None) -> dict:
    """Compile a case in a process of its own; return what it tells.

    Args:
        chosen: The case.
        keep: File for the program's text.

    Raises:
        RuntimeError: The process failed; its last words are in the message.
    """
    command = [sys.executable, str(CHILD), chosen.topology, *chosen.words]
    command += [] if keep is None else ["--keep", str(keep)]
    return told_by(command, chosen.work)


def told_by(command: list[str], work: str) -> dict:
    """Run a command whose last line is JSON; return that.

    Raises:
        RuntimeError: The process failed; its last words are in the message.
    """
    done = subprocess.run(
        command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{work}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_keras_hub(python: str, layers: tuple[int, ...] = LAYERS) -> list[dict]:
    """Compile KerasHub's 9B, cut to some layers; return what each process tells."""
    return [
        told_by([python, str(KERAS_HUB), str(count)], f"KerasHub, {count} layers")
        for count in layers
    ]


def row(name: str, result: dict) -> list[str]:
    """Return a case and its figures as a person reads them."""
    chosen, state = CASES[name], result["state_bytes"]
    place = [chosen.work, f"{chosen.topology}, mesh {result['mesh']}"]
    held = [mib(state[key]) for key in STATE]
    took = [
        f"{result['compile_seconds']:.0f} s",
        f"{result['processor_seconds']:.0f} s",
        f"{result['host_peak_bytes'] / 1e9:.1f} GB",
    ]
    if "refused" in result:
        return [*place, "no", "", f"{chosen.chip_gib}", *held, "", "", *took]
    total = f"{result['total_bytes'] / GIB:.2f}"
    made = [mib(result[key]) for key in ("temporary_bytes", "code_bytes")]
    return [*place, "yes", total, f"{chosen.chip_gib}", *held, *made, *took]


def mib(count: int) -> str:
    """Return bytes in MiB."""
    return f"{count / MIB:,.1f}"


def report(measured: dict[str, dict]) -> str:
    """Return the page: a table, then where and how each row was measured."""
    header = ["Gemma 2", "chips", "fits", "GiB a chip", "has", *STATE]
    header += ["temporary", "program", "compiled in", "processor", "host memory"]
    rows = [row(name, measured[name]) for name in CASES if name in measured]
    table = markdown_table(header, rows, text_columns=(0, 1, 2))
    commands = [
        f"- {CASES[name].work}: `{' '.join(CASES[name].words)}`, "
        + f"`python tests/benchmarks/tpu_programs.py --only {name}`. "
        + sentence(measured[name]["machine"])
        + f" JAX {measured[name]['versions']['jax']}, "
        + f"libtpu {measured[name]['versions']['libtpu']}."
        for name in CASES
        if name in measured
    ]
    peer = keras_hub_section(measured["keras_hub"]) if "keras_hub" in measured else []
    return "\n".join([_INTRODUCTION, table, "", *peer, _NOTES, *commands, ""])


def keras_hub_section(found: dict) -> list[str]:
    """Return KerasHub's figures."""
    parts = ("argument_bytes", "temporary_bytes", "code_bytes")
    rows = [
        [str(r["num_layers"]), *_memory(r, parts), f"{r['compile_seconds']:.0f} s"]
        for r in found["runs"]
    ]
    header = ["layers", "GiB a chip", "state and batch", "temporary", "program"]
    versions = found["runs"][0]["versions"].items()
    shown = ", ".join(f"{name} {version}" for name, version in versions)
    return [
        _KERAS_HUB,
        markdown_table([*header, "compiled in"], rows),
        "",
        f"{sentence(found['machine'])} {shown}.",
        "",
        "## How each row was measured",
        "",
    ]


def _memory(run: dict, parts: tuple[str, ...]) -> list[str]:
    if "refused" in run:
        return ["does not fit", *[""] * len(parts)]
    return [f"{run['total_bytes'] / GIB:.2f}", *(mib(run[key]) for key in parts)]


def main() -> None:
    """Compile the cases and write `tpu_programs.json` and `tpu_programs.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIRECTORY")
    parser.add_argument("--keras-hub", metavar="PYTHON")
    words = parser.parse_args()
    file = words.out / "tpu_programs.json"
    measured = json.loads(file.read_text()) if file.exists() else {}
    for name in words.only:
        facts = machine_facts()
        keep = words.keep and words.keep / f"{name}.hlo"
        measured[name] = measure(CASES[name], keep) | {"machine": facts}
        write(measured, words.out)
    if words.keras_hub:
        facts = machine_facts()
        runs = measure_keras_hub(words.keras_hub)
        measured["keras_hub"] = {"runs": runs, "machine": facts}
        write(measured, words.out)
    print(report(measured))


def write(measured: dict[str, dict], out: pathlib.Path) -> None:
    """Write numbers and page."""
    text = json.dumps(measured, indent=2, sort_keys=True) + "\n"
    (out / "tpu_programs.json").write_text(text)
    (out / "tpu_programs.md").write_text(report(measured))


_INTRODUCTION = """# Steps compiled for TPUs that are not here

The step that `python -m trainer` runs, lowered on shapes and compiled by the TPU's own
compiler (extra `plan`) without a TPU. GiB a chip is what the compiler counts; beside it
is what that is made of, in MiB: what is held between steps, what a step works in, and
the program. Nothing was run: speed is not measured here.
"""
_KERAS_HUB = """## KerasHub's step

`GemmaCausalLM.train_step` of Gemma 2 9B, cut to some of its 42 layers, with LoRA of
rank 8, 8x1024, bfloat16, mesh 1x8 of v5e:2x4 by its own `get_layout_map`. Layers are
unrolled and nothing is computed again by choice. Where that exceeds the 15.75 GiB that
a program gets, as 42 layers would, the compiler begins to compute again by itself.
"""
_NOTES = """Time is that of the machine as it was, others at work on it included; the
processor's is the compiler's own.
"""


if __name__ == "__main__":
    main()
