"""The benchmark on WordNet rows: what subjects get, and the page made of figures."""

import json
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER))

import wordnet_270m  # noqa: E402
from wordnet_rows import SEQUENCE_LENGTH, write_rows  # noqa: E402

from tests.benchmarks.invented import MACHINE  # noqa: E402
from trainer.__main__ import compose  # noqa: E402


def result(step_seconds, loss):
    return {
        "step_seconds": step_seconds,
        "first_rows": 8,
        "rows": 320,
        "peak_bytes": 2 * 10**9,
        "seconds": 90.0,
        "other_cores": 0.25,
        "loss": loss,
        "content_loss": loss + 0.5,
    }


def test_the_first_step_is_left_out_of_the_rate_that_lasts():
    whole, later = wordnet_270m.rows_per_second(result([6.0, 1.0, 1.0], 2.0))
    assert (whole, later) == (40.0, 156.0)


def test_the_page_has_medians_losses_and_who_did_not_run():
    ours = [
        result([2.0, s], loss) | {"loss_before": 6.0, "content_loss_before": 4.0}
        for s, loss in ((2.0, 1.75), (4.0, 2.0), (8.0, 2.5))
    ]
    measured = {"unpacked": ours, "trl": [{"failed": "no module"}]}
    page = wordnet_270m.report(MACHINE, measured, 35, ["trainer.remat=none"])
    row = next(line for line in page.splitlines() if "8 rows a step |" in line)
    assert row.split(" | ")[1:4] == ["53.33", "78.00 (39.00 to 156.00)", "2.00 GB"]
    assert row.split(" | ")[4] == "2.000 (1.750 to 2.500)"
    assert row.split(" | ")[5:] == ["2.500 (2.250 to 3.000)", "90 s |"]
    assert "packed, 35 steps of one sequence of 256" in page
    assert "Before training they are 6.000 and 4.000" in page
    assert "with `trainer.remat=none` too" in page
    assert "did not run: no module" in page


def test_subjects_get_the_same_rows_as_text_and_as_tokens(tmp_path):
    packs = write_rows("gemma2_tiny_en", tmp_path)
    content = json.loads((tmp_path / "rows.json").read_text())
    assert len(content["train"]) == 320 and len(content["heldout"]) == 200
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 320
    positions = sum(len(row["ids"]) - 1 for row in content["train"])
    assert positions / SEQUENCE_LENGTH <= packs < 1.1 * positions / SEQUENCE_LENGTH
    row, end = content["heldout"][0], content["settings"]["end_of_turn"]
    learned = [t for t, m in zip(row["ids"], row["loss_mask"], strict=True) if m]
    assert learned.count(end) == 1 and learned[-1] == end


def test_both_command_lines_are_valid(tmp_path):
    for subject, steps in (("unpacked", 40), ("packed", 35)):
        words = wordnet_270m.overrides(subject, str(tmp_path), tmp_path, 35)
        config = compose(words)
        assert config.trainer.num_train_steps == steps
        assert config.data.pack == (subject == "packed")


def test_a_run_gives_the_losses_of_its_first_and_last_evaluation():
    evaluations = [
        {"step": step, "eval/loss": loss, "eval/content_loss": loss + 1}
        for step, loss in ((0, 6.0), (40, 2.0))
    ]
    steps = [
        {"step": 1, "train/step_seconds": 5.0, "train/rows_seen": 8},
        {"step": 2, "train/step_seconds": 1.0, "train/rows_seen": 320},
    ]
    found = wordnet_270m.read_metrics("packed", [*steps, *evaluations])
    assert (found["loss_before"], found["loss"]) == (6.0, 2.0)
    assert (found["content_loss_before"], found["content_loss"]) == (7.0, 3.0)
    assert (found["first_rows"], found["step_seconds"]) == (8, [5.0, 1.0])
    steps[-1]["train/rows_seen"] = 319
    with pytest.raises(RuntimeError, match="packed saw 319 rows, expected 320"):
        wordnet_270m.read_metrics("packed", [*steps, *evaluations])


def test_a_command_that_fails_ends_the_benchmark():
    with pytest.raises(RuntimeError, match="unpacked ended with"):
        wordnet_270m.run_ours("unpacked", "gemma2_tiny_en", 35, ["lora.rnk=8"], seed=0)
