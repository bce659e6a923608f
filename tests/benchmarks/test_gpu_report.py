"""The benchmark of one GPU: its share of the peak, its page, and a trial on a CPU."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import gpu  # noqa: E402
from workload import Workload  # noqa: E402

from tests.benchmarks.invented import MACHINE  # noqa: E402


def measured(subject, tokens_per_second, **more):
    shown = {"preset": "gemma2_2b_en", "subject": subject, "way": {"remat": "block"}}
    ran = {
        "tokens_per_second": tokens_per_second,
        "mfu": 0.5,
        "device_peak_bytes": 3 * 2**30,
        "device_kind": "a chip",
        "first_step_seconds": 20.0,
        "versions": "jax 0",
    }
    shape = {"batch_size": 4, "sequence_length": 4096, "machine": MACHINE}
    return shown | shape | ran | more


def test_a_packed_sequence_is_cut_into_rows_with_positions_of_their_own():
    workload = Workload(
        vocabulary_size=9, sequence_length=10, row_tokens=4, batch_size=2
    )
    assert workload.row_lengths == [4, 4, 2]
    assert workload.positions().tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]] * 2


def test_the_fastest_way_of_a_subject_is_compared_with_the_best_peer():
    results = {
        "a": measured("ours", 100.0),
        "b": measured("ours", 300.0),
        "c": measured("transformers_peft", 200.0),
        "d": measured("keras_hub", 120.0),
    }
    results["d"] = {"failed": "RESOURCE_EXHAUSTED", **results["d"]}
    del results["d"]["tokens_per_second"]
    page = gpu.report(results)
    assert "over the best peer, transformers with peft: 1.50 times" in page
    assert "| `remat=block` | 4 x 4096 | 300 | 50.0% | 3.0 GiB | 20 s |" in page
    assert "did not run: RESOURCE_EXHAUSTED" in page
    assert "- this project: jax 0; a chip; 2026-01-02" in page


def test_subjects_take_turns_within_a_batch_size():
    found = gpu.trials(["gemma2_2b_en"], ["ours", "keras_hub"], [1, 4])
    assert [(t.batch_size, t.subject) for t in found] == [
        *[(1, "ours"), (1, "ours"), (1, "keras_hub")],
        *[(4, "ours"), (4, "ours"), (4, "keras_hub")],
    ]


@pytest.mark.timeout(180)
def test_a_trial_of_ours_runs_and_is_kept(tmp_path):
    words = ["--presets", "gemma2_tiny_en", "--subjects", "ours", "--batches", "1"]
    words += ["--sequence-length", "64", "--steps", "1", "--platform", "cpu"]
    assert gpu.main([*words, "--out", str(tmp_path)]) == 0
    page = (tmp_path / "gpu.md").read_text()
    assert "| this project | `remat=attention` | 1 x 64 |" in page
    assert "did not run" not in page


@pytest.mark.gpu
@pytest.mark.timeout(900)
def test_a_step_of_2b_on_a_gpu_tells_its_share_of_the_peak(tmp_path):
    words = ["--presets", "gemma2_2b_en", "--subjects", "ours", "--batches", "1"]
    assert gpu.main([*words, "--steps", "3", "--out", str(tmp_path)]) == 0
    assert "% |" in (tmp_path / "gpu.md").read_text()
