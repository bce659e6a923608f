"""Jobs of Slurm, with a recorder that runs, warns and requeues them as Slurm does."""

import sys

import pytest

from trainer.config.errors import ConfigError

TASK = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(83)))
index, restarts = os.environ["SLURM_PROCID"], int(os.environ["SLURM_RESTART_COUNT"])
print("task", index, "start", restarts, sys.argv[3:], flush=True)
code = {codes!r}[min(restarts, len({codes!r}) - 1)][int(index)]
time.sleep(60 if code == "runs" else 0.2 * (code == "late"))
sys.exit(6 if code == "late" else code)
"""


@pytest.fixture
def job(tools, launched, monkeypatch, tmp_path):
    """Run a job of two tasks that end with given codes, one pair for each start."""

    def run(*codes, typed=()):
        tools.slurm()
        program = tmp_path / "python"
        program.write_text(f"#!{sys.executable}\n{TASK.format(codes=codes)}")
        program.chmod(0o755)
        monkeypatch.setattr("launch.targets.sys.executable", str(program))
        words = ["launch.submit=true", "launch.processes=2", "preset=gemma2_2b_en"]
        assert launched("slurm", *words, *typed) == 0
        return tools

    return run


def test_a_job_starts_one_task_a_node_with_the_typed_words(job, tmp_path):
    tools = job((0, 0))
    assert tools.ended == "0 after 0"
    (call,) = tools.calls("sbatch")
    assert call == [f"--chdir={tmp_path}", "job.sbatch"]
    for index in (0, 1):
        assert f"{index}: task {index} start 0 ['preset=gemma2_2b_en']" in tools.log


@pytest.mark.parametrize("code", [6, 83])
def test_a_lost_or_preempted_job_is_queued_again(job, code):
    tools = job((code, code), (0, 0))
    assert tools.ended == "0 after 1"
    assert tools.calls("scontrol") == [["requeue", "4711"]]
    assert f"launch: ended with {code}; restart 1 of 50" in tools.log


def test_the_warning_before_the_limit_saves_and_queues_again(job, monkeypatch):
    monkeypatch.setenv("RECORDER_LIMIT_SECONDS", "1.5")
    tools = job(("runs", "runs"), (0, 0))
    assert tools.ended == "0 after 1"
    assert "launch: ended with 83; restart 1 of 50" in tools.log


@pytest.mark.parametrize("code", [2, 3, 5, 9])
def test_a_final_end_of_one_task_is_not_started_again(job, code):
    """The other task leaves with 6, which must not be taken for the cause."""
    tools = job((code, "late"))
    assert tools.ended == f"{code} after 0"


def test_a_job_is_queued_again_only_so_often(job):
    tools = job((6, "late"), typed=["launch.max_restarts=2"])
    assert tools.ended == "6 after 2"
    assert "ended with 6 after 2 restarts, as many as there may be" in tools.log


def test_a_killed_task_is_a_process_lost(job):
    tools = job((137, "late"), (0, 0))
    assert tools.ended == "0 after 1"


def test_a_job_leaves_no_notes_behind(job, tmp_path):
    job((6, 6), (0, 0))
    assert list(tmp_path.glob(".*codes*")) == []


def test_a_secret_has_to_be_there_when_a_job_is_sent(job, launched, monkeypatch):
    typed = ["launch.secrets=[WANDB_API_KEY]"]
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="in the environment") as caught:
        job((0, 0), typed=typed)
    assert caught.value.fix.startswith("export WANDB_API_KEY")
