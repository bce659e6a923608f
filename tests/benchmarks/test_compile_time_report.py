"""The page of compile times shows medians and how they grow."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import compile_time  # noqa: E402

from tests.benchmarks.invented import MACHINE  # noqa: E402


def rounds(*seconds):
    return [{"seconds": s, "processor_seconds": 2 * s, "lines": 9000} for s in seconds]


def test_medians_stand_beside_their_ratio_to_the_fewest_layers():
    measured = {12: rounds(4.0, 9.0, 5.0), 48: rounds(5.0, 5.5, 90.0)}
    page = compile_time.report(MACHINE, measured)
    assert "| 12 | 5.00 s | 1.000 | 10.00 s | 1.000 | 9,000 |" in page
    assert "| 48 | 5.50 s | 1.100 | 11.00 s | 1.100 | 9,000 |" in page
    assert "Medians of 3 rounds" in page
