"""Programs of many kinds, compiled for TPUs that are not here, with their bytes.

Turns a list of command lines into tests/golden/plan_cases.json: what the compiler says
that each needs of a device, how long it took and the memory that it took for it. The
estimate of `trainer.model.memory` is held to these numbers by the default tests.

    JAX_PLATFORMS=cpu python tests/benchmarks/plan_cases.py            all, 10 minutes
    JAX_PLATFORMS=cpu python tests/benchmarks/plan_cases.py lora_9b    one

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

from machine import machine_facts  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
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
    "lora_gemma_2b": "gemma_2b_en v5e:2x4 2x4 16x512",
    "lora_gemma_7b": "gemma_7b_en v4:2x2x2 4x2 16x1024",
    "lora_27b_256": "gemma2_27b_en v5e:16x16 16x16 64x4096",
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
        "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2),
    }


def main() -> None:
    """Compile the cases that are named, or all, and write the results."""
    known = json.loads(RESULTS.read_text())["cases"] if RESULTS.exists() else {}
    for name in sys.argv[1:] or CASES:
        known[name] = compiled(words_of(CASES[name]))
        print(name, json.dumps(known[name]), flush=True)
        facts = {
            "compiler": f"libtpu {importlib.metadata.version('libtpu')}",
            "machine": machine_facts(),
            "cases": {name: known[name] for name in CASES if name in known},
        }
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
