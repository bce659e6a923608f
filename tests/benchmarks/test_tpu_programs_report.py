"""The page of programs for absent TPUs says what was measured, and of which chips."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import tpu_programs  # noqa: E402

from tests.benchmarks.invented import MACHINE  # noqa: E402

TOOK = {
    "mesh": "1x8",
    "compile_seconds": 61.4,
    "state_bytes": {"weights": 2 << 30, "adapters": 3 << 20, "optimizer": 6 << 20},
    "processor_seconds": 90.0,
    "host_peak_bytes": 2.5e9,
    "versions": {"jax": "0.10.2", "libtpu": "0.0.42.1"},
    "machine": MACHINE,
}


def test_a_case_that_fits_has_its_gib():
    sizes = {"total_bytes": 3 << 30, "temporary_bytes": 1 << 30, "code_bytes": 1 << 19}
    page = tpu_programs.report({"lora_9b": TOOK | sizes})
    assert (
        "| 9B, LoRA rank 8, 8x1024 | v5e:2x4, mesh 1x8 | yes | 3.00 | 16 "
        "| 2,048.0 | 3.0 | 6.0 | 1,024.0 | 0.5 | 61 s | 90 s | 2.5 GB |" in page
    )
    assert "2026-01-02, a processor" in page
    assert "libtpu 0.0.42.1" in page


def test_a_case_that_was_refused_says_so():
    page = tpu_programs.report(
        {"lora_9b_48": TOOK | {"refused": "RESOURCE_EXHAUSTED: ..."}}
    )
    assert "| v5e:2x4, mesh 1x8 | no |  | 16 | 2,048.0 | 3.0 | 6.0 |  |  |" in page


def test_keras_hubs_step_is_told_by_layers():
    parts = ("argument_bytes", "temporary_bytes", "code_bytes")
    runs = [
        {"num_layers": n, "total_bytes": (n + 3) << 29, "compile_seconds": 9.0 * n}
        | dict.fromkeys(parts, n << 20)
        | {"versions": {"keras-hub": "0.32.0"}}
        for n in (2, 8, 16)
    ]
    runs.append({"num_layers": 42, "refused": "why", "compile_seconds": 100.0})
    page = tpu_programs.report({"keras_hub": {"runs": runs, "machine": MACHINE}})
    assert "| 8 | 5.50 | 8.0 | 8.0 | 8.0 | 72 s |" in page
    assert "| 42 | does not fit |  |  |  | 100 s |" in page
    assert "2026-01-02, a processor" in page
    assert "keras-hub 0.32.0." in page


def test_a_case_that_fails_is_told_with_its_last_words(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(RuntimeError, match="(?s)9B, LoRA rank 8, .*KERAS_BACKEND"):
        tpu_programs.measure(tpu_programs.CASES["lora_9b"])
