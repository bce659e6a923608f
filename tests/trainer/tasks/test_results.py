"""The figures that say how a run went, from lines of `metrics.jsonl`."""

from trainer.tasks.results import results_of
from trainer.training.loop import Progress

LINES = [
    {"step": 0, "eval/loss": 4.0},
    {"step": 1, "train/loss": 4.0, "train/tokens_per_second": 10.0},
    {"step": 2, "train/loss": 3.5, "train/tokens_per_second": 1000.0},
    {"step": 3, "train/loss": 3.0, "train/tokens_per_second": 1200.0, "eval/loss": 3.0},
]


def test_medians_and_the_change_of_the_loss():
    results = results_of(LINES, Progress(step=3, rows_seen=48), 12.34)
    assert results == {
        "step": 3,
        "rows seen": 48,
        "held-out loss": "4.0000 -> 3.0000 (-25.0 %)",
        "tokens/s (median)": "1,000",
        "seconds": 12.3,
    }


def test_seconds_of_a_run_that_went_on_are_of_its_last_start():
    results = results_of(LINES, Progress(step=3), 12.34, went_on=True)
    assert results["seconds since the last start"] == 12.3


def test_training_that_made_it_worse_is_told():
    told = [*LINES, {"step": 4, "eval/loss": 4.1}]
    results = results_of(told, Progress(step=4), 1.0)
    assert results["held-out loss"] == "4.0000 -> 4.1000 (+2.5 %)"
    assert "lower optimizer.learning_rate" in results["warning"]


def test_the_share_of_the_peak_and_memory_where_they_were_told():
    told = [
        line | {"train/mfu": share, "train/memory_peak_bytes": share * 2**31}
        for line, share in zip(LINES[1:], (0.01, 0.5, 0.52), strict=True)
    ]
    results = results_of(told, Progress(step=3), 1.0)
    assert results["MFU (median)"] == "50.0%"
    assert results["memory"] == "1.04 GiB"
