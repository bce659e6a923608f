"""A sweep's summary compares its runs, best first."""

from trainer import storage
from trainer.artifacts.sweep import write_summary
from trainer.tracking import JsonlTracker, MetricsLog


def job(root, name, *, rank, losses, measure="eval/loss", exit_code=0):
    config = f"lora:\n  rank: {rank}\n  alpha: null\nrun:\n  name: {name}\n"
    storage.write_text(f"{root}/{name}/config.yaml", config)
    with MetricsLog(f"{root}/{name}") as log:
        for step, loss in losses.items():
            log.write(step, {measure: loss})
        if exit_code is not None:
            JsonlTracker(log).event("end", {"exit_code": exit_code})


def test_the_best_run_comes_first_and_failed_ones_last(root):
    job(root, "a", rank=4, losses={0: 4.0, 10: 3.5})
    job(root, "b", rank=8, losses={}, exit_code=5)
    job(root, "c", rank=16, losses={0: 4.0, 10: 3.0})
    storage.write_text(f"{root}/notes.txt", "not a run")
    assert [run.name for run in write_summary(root)] == ["c", "a", "b"]
    lines = storage.read_text(f"{root}/summary.md").splitlines()
    assert lines[4] == "|  | lora.rank | eval/loss | at first | steps | end | run |"
    assert lines[6] == "| 1 | 16 | 3 | 4 | 10 | exit 0 | [c](c/report.html) |"
    assert lines[8] == "|  | 8 | none | none | 0 | exit 5 | [b](b/report.html) |"


def test_without_evaluation_the_training_loss_is_compared(tmp_path):
    job(tmp_path, "a", rank=4, losses={10: 3.5}, measure="train/loss")
    job(tmp_path, "b", rank=8, losses={10: 2.5}, measure="train/loss", exit_code=None)
    assert [run.name for run in write_summary(tmp_path)] == ["b", "a"]
    text = storage.read_text(tmp_path / "summary.md")
    assert "best `train/loss` first" in text and "not ended" in text


def test_a_summary_is_written_again_when_runs_are_added(tmp_path):
    job(tmp_path, "a", rank=4, losses={10: 3.5})
    write_summary(tmp_path)
    job(tmp_path, "b", rank=8, losses={10: 2.5})
    assert len(write_summary(tmp_path)) == 2


def test_jobs_that_never_began_are_told_with_what_was_typed(tmp_path):
    job(tmp_path, "a", rank=4, losses={10: 3.5})
    write_summary(tmp_path, failed=[("data.path=none.jsonl", 3)])
    page = storage.read_text(tmp_path / "summary.md")
    assert page.endswith("Ended badly:\n\n- `data.path=none.jsonl`: exit code 3\n")
