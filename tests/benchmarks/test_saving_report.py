"""The page of saves shows for how long the loop stood still, and of what."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import saving  # noqa: E402

from tests.benchmarks.invented import MACHINE  # noqa: E402

MEASURED = {
    "bytes": 604_000_000,
    "digest_seconds": 0.05,
    "step_seconds": 0.02,
    "stood_seconds": [0.01, 0.02, 0.09],
    "next_step_seconds": [0.2, 0.3, 0.4],
    "lasted_seconds": [1.0, 2.0, 1.5],
}


def test_seconds_stand_beside_their_share_of_the_median_save():
    page = saving.report(MACHINE, MEASURED)
    assert "| the save, from the call to the commit | 1.500 s | 100.0% |" in page
    assert "| the loop stands still | 0.020 s | 1.3% |" in page
    assert "| the next step | 0.300 s | 20.0% |" in page
    assert "604 MB in float32, 3 saves" in page
    assert "for 6.0% of a save at most" in page


def test_a_small_state_is_saved_and_timed(tmp_path, monkeypatch):
    from tests.benchmarks.subjects import saves

    monkeypatch.setattr(saves, "SHAPE", (4, 8))
    measured = saves.measure(tmp_path / "checkpoints", 2)
    assert measured["bytes"] == saves.ARRAYS * 4 * 8 * 4
    assert len(measured["stood_seconds"]) == 2
    for stood, whole in zip(
        measured["stood_seconds"], measured["lasted_seconds"], strict=True
    ):
        assert 0 < stood < whole
