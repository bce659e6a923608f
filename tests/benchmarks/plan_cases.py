"""Programs of many kinds, compiled for TPUs that are not here, with their bytes.

Turns a list of command lines into tests/golden/plan_cases.json: what the compiler says
that each needs of a device, and what the whole command took of this machine; and
into results/plan.md, with the estimate of `trainer.model.memory` beside, which the
default tests hold to these numbers.

    JAX_PLATFORMS=cpu python tests/benchmarks/plan_cases.py            all, 15 minutes
    JAX_PLATFORMS=cpu python tests/benchmarks/plan_cases.py lora_9b    one
    JAX_PLATFORMS=cpu python tests/benchmarks/plan_cases.py --table    none, the table

Needs the extra `plan`.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from machine import machine_facts, sentence  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TABLE = REPOSITORY / "tests" / "benchmarks" / "results" / "plan.md"
RESULTS = REPOSITORY / "tests" / "golden" / "plan_cases.json"

CASES = {
    "lora_9b": "gemma2_9b_en v5e:2x4 1x8 8x1024",
    "lora_9b_48": "gemma2_9b_en v5e:2x4 1x8 48x1024",
    "lora_9b_2x4": "gemma2_9b_en v5e:2x4 2x4 8x1024",
    "lora_9b_8x1": "gemma2_9b_en v6e:2x4 8x1 16x2048",
    "full_9b": "gemma2_9b_en v5e:8x8 8x8 64x1024 lora=none",
    "lora_2b": "gemma2_2b_en v5e:2x4 8x1 16x1024",
    "lora_2b_512": "gemma2_2b_en v5e:2x4 2x4 32x512 lora.targets=['*'] lora.rank=32",
    "lora_2b_accumulated": "gemma2_2b_en v5e:2x2 4x1 8x2048 "
    "trainer.global_batch_size=32",
    "lora_2b_attention": "gemma2_2b_en v5e:2x4 2x4 16x1024 trainer.remat=attention",
    "full_2b": "gemma2_2b_en v5e:2x4 2x4 8x1024 lora=none",
    "full_2b_adafactor": "gemma2_2b_en v5p:2x2x1 4x1 16x1024 lora=none "
    "optimizer=adafactor",
    "lora_27b": "gemma2_27b_en v5e:4x8 4x8 16x4096",
    "lora_27b_v5p": "gemma2_27b_en v5p:2x2x2 1x8 16x4096",
    "int4_27b": "gemma2_27b_en v5e:2x4 1x8 8x1024 preset.quantize=int4",
    "int8_9b": "gemma2_9b_en v5e:2x2 1x4 4x1024 preset.quantize=int8",
    "lora_gemma3_1b": "gemma3_1b v6e:2x4 8x1 16x4096",
    "lora_gemma3_4b": "gemma3_4b_text v5e:2x4 2x4 8x2048",
    "lora_gemma3_27b": "gemma3_27b_text v5p:2x2x2 2x4 8x2048",
    "lora_gemma3_4b_attention": "gemma3_4b_text v5e:2x4 2x4 8x2048 "
    "trainer.remat=attention",
    "full_gemma3_4b": "gemma3_4b_text v5e:4x4 8x2 16x2048 lora=none",
    "lora_gemma_2b": "gemma_2b_en v5e:2x4 2x4 16x512",
    "lora_gemma_7b": "gemma_7b_en v4:2x2x2 4x2 16x1024",
    "lora_27b_256": "gemma2_27b_en v5e:16x16 16x16 64x4096",
    "lora_9b_slices": "gemma2_9b_en v5e:2x4 4x4 16x1024 mesh.slices=2",
}
"""Preset, chips, mesh, microbatch x sequence length, and other keys."""


def words_of(case: str) -> list[str]:
    """Return what would be typed for a case."""
    preset, chips, mesh, step, *others = case.split()
    size, length = step.split("x")
    words = [
        f"preset={preset}",
        f"plan.topology={chips}",
        f"mesh={mesh}",
        f"data.sequence_length={length}",
    ]
    if any(word.startswith("trainer.global_batch_size=") for word in others):
        words.append(f"trainer.microbatch_size={size}")
    else:
        words.append(f"trainer.global_batch_size={size}")
    if not any(word.startswith("trainer.remat=") for word in others):
        words.append("trainer.remat=block")  # auto would ask how much memory there is
    return words + others


def compiled(words: list[str]) -> dict[str, object]:
    """Plan in a process of its own; return bytes, seconds and peak memory."""
    command = [sys.executable, "-m", "trainer", "task=plan", "plan.format=json"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as out:
        cache = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
        child = subprocess.Popen(
            [*command, f"run.root={scratch}", *words],
            cwd=REPOSITORY,
            env=os.environ | cache,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
        told = child.stderr.read()
        _, status, used = os.wait4(child.pid, 0)
        out.seek(0)
        if "estimated" in told or os.waitstatus_to_exitcode(status) not in (0, 5):
            raise RuntimeError(f"{' '.join(words)}: nothing was compiled\n{told}")
        plan = json.load(out)
    parts = plan["bytes_per_device"]
    return {
        "words": words,
        "fits": plan["fits"],
        "total_bytes_per_device": plan["total_bytes_per_device"],
        "state_bytes": sum(parts[k] for k in ("weights", "adapters", "optimizer")),
        "collective_bytes": sum(c["bytes"] for c in plan["collectives"]),
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2),
    }


def estimated(words: list[str]) -> int:
    """Return what the estimate says of a case."""
    sys.path.insert(0, str(REPOSITORY))
    from trainer.__main__ import compose
    from trainer.config.topology import planned_topology
    from trainer.tasks.planning.chips import undescribed
    from trainer.tasks.planning.preparing import prepare

    config = compose(["task=plan", *words])
    planned = prepare(config, undescribed(planned_topology(config)))
    return planned.memory.bytes_per_device(planned.shape)


def table(facts: dict) -> str:
    """Return the results as a page."""
    lines = [
        "# What a step needs of a TPU that is not there",
        "",
        f"{facts['compiler']}, {sentence(facts['machine'])} `plan_cases.py` measures "
        "again.",
        "",
        "| step | state | in all, compiled | in all, estimated | | planned in |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for case in facts["cases"].values():
        total, guess = case["total_bytes_per_device"], estimated(case["words"])
        lines.append(
            f"| `{' '.join(case['words'])}` | {gib(case['state_bytes'])} "
            f"| {gib(total)} | {gib(guess)} | {100 * (guess / total - 1):+.1f} % "
            f"| {case['seconds']:.0f} s, {case['peak_gb']:.1f} GB |"
        )
    return "\n".join(lines) + "\n"


def gib(count: int) -> str:
    """Return bytes in GiB."""
    return f"{count / 2**30:.2f} GiB"


def main() -> None:
    """Compile the cases that are named, or all, and write the results."""
    facts = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
    known = facts["cases"]
    names = [name for name in sys.argv[1:] if name != "--table"]
    for name in names or ([] if "--table" in sys.argv else CASES):
        known[name] = compiled(words_of(CASES[name]))
        print(name, json.dumps(known[name]), flush=True)
        facts = {
            "compiler": f"libtpu {importlib.metadata.version('libtpu')}",
            "machine": machine_facts(),
            "cases": {name: known[name] for name in CASES if name in known},
        }
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    TABLE.write_text(table(facts))


if __name__ == "__main__":
    main()
