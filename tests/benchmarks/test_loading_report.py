"""The loading benchmark: its table and ratios on figures made by hand."""

import json
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER))

import loading  # noqa: E402

from tests.benchmarks.invented import MACHINE  # noqa: E402


def result(seconds, memory_ratio=1.0):
    return {
        "seconds": seconds,
        "processor_seconds": seconds / 2,
        "bytes": 10**9,
        "memory_ratio": memory_ratio,
        "other_cores": 0.25,
    }


def measured(**changes):
    return {name: [result(2.0), result(4.0)] for name in loading.RUNS} | changes


def test_ratios_are_of_the_same_round():
    slower = [result(4.0), result(16.0)]
    assert loading.ratio(measured(ours=slower), "ours", "keras_hub") == 3.0


def test_the_report_has_medians_ranges_and_the_worst_memory():
    page = loading.report(MACHINE, measured(ours=[result(1.0), result(1.0, 1.2)]))
    assert "import and `from_preset` | 1.00 | 1.00 to 1.00 | 1.00 | 0.50 | 1.20 |" in (
        page
    )
    assert "KerasHub's form loads at 1.00 times the speed of reading it." in page
    assert "KerasHub takes 3.0 times as long as `gemma`." in page


def test_what_did_not_run_says_why():
    failed = [{"failed": "no interpreter"}, result(1.0)]
    page = loading.report(MACHINE, measured(keras_hub=failed))
    assert "no interpreter" in page
    assert "times as long" not in page


def test_memory_of_what_a_process_reads_is_seen(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x" * (64 << 20))
    child = [sys.executable, FOLDER / "loading_child.py", "read", tmp_path]
    printed = subprocess.run(child, check=True, capture_output=True, timeout=120)
    read = json.loads(printed.stdout)
    assert read["bytes"] == 64 << 20
    assert 0.9 < read["memory_ratio"] < 1.5
