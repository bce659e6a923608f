"""The command as users type it, in a process of its own: speed, codes, no traces."""

import os
import re
import subprocess
import sys
import time

import pytest
import yaml

from trainer.config import ending, interruption
from trainer.config.ending import exit_code_of
from trainer.config.errors import ConfigError, DataError
from trainer.config.simulated import simulate_devices

MESSAGE_SECONDS = 2.0


@pytest.fixture
def trainer(repository, tmp_path):
    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "trainer", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(repository)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["+preset=gemma2_9b_en", "mesh=1x8"], "name: gemma2_9b_en"),
        (["preset=gemma2_9b_en", "mesh=16x16"], "shape: 16x16"),
        (["artifacts.from=best"], "  from: best"),
        (["--resolve", "lora=none"], "rank: 0"),
        (["--package", "lora", "lora=rank16"], "rank: 16"),
    ],
)
def test_cfg_job_shows_what_was_chosen(trainer, words, shown):
    done = trainer(*words, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_cfg_job_composes_a_multirun(trainer):
    words = ["--multirun", "lora.rank=4,8,16", "optimizer.learning_rate=1e-4,1e-3"]
    done = trainer(*words, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    jobs = list(yaml.safe_load_all(done.stdout))
    assert [job["lora"]["rank"] for job in jobs] == [4, 4, 8, 8, 16, 16]
    assert [job["optimizer"]["learning_rate"] for job in jobs] == [1e-4, 1e-3] * 3


def test_help_lists_groups_and_keys(trainer):
    done = trainer("--help")
    assert done.returncode == 0, done.stderr
    assert "gemma2_9b_en" in done.stdout
    assert "sequence_length: 128" in done.stdout


def test_a_wrong_word_costs_two_seconds_one_screen_and_no_trace(trainer, tmp_path):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = trainer("+preset=gemma2_9_en", "mesh=1x8", "lora.rnk=4")
        seconds.append(time.perf_counter() - start)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "preset=gemma2_9b_en" in done.stderr
    assert "lora.rank=4" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 24
    assert list(tmp_path.iterdir()) == []
    assert min(seconds) < MESSAGE_SECONDS


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["lora.targets=[qery]"], "lora.targets=[query]"),
        (["tracker=wandb", "tracker.mode=online"], "run `wandb login` once"),
        (["mesh=[2,4]"], "mesh=2x4"),
    ],
)
def test_what_can_be_known_is_told_before_jax_is_imported(
    repository, tmp_path, words, fix
):
    code = (
        "import sys, trainer.__main__ as m\n"
        "try: m.main()\n"
        "finally: print([n for n in ('jax', 'keras', 'wandb') if n in sys.modules])"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(repository), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert fix in done.stderr
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(trainer):
    done = trainer("debug=true", "seed=x")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.rstrip().endswith("seed=0")


def test_a_sweep_with_a_wrong_value_starts_no_job(trainer, tmp_path):
    done = trainer("--multirun", "lora.rank=4,8", "optimizer.learning_rate=1e-3,-1")
    assert done.returncode == 2
    assert "received  -1.0" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_switches_and_overrides_may_be_mixed(trainer):
    done = trainer("seed=3", "--multirun", "lora.rank=4,8", "--cfg", "job")
    assert done.returncode == 0, done.stderr


def test_pickled_jobs_are_not_read(trainer):
    done = trainer("--experimental-rerun", "job.pickle")
    assert done.returncode == 2
    assert "Pickles are not read" in done.stderr


SMALL = [
    "preset.load_weights=false",
    "trainer.num_train_steps=1",
    "trainer.global_batch_size=2",
    "trainer.eval_every_steps=0",
    "trainer.sample_prompts=0",
    "data.sequence_length=32",
    "data.eval_rows=2",
    "artifacts.preset=false",
]


@pytest.mark.slow
def test_a_failing_job_of_a_sweep_does_not_stop_the_others(trainer, tmp_path):
    words = ["data=jsonl", "data.path=missing.jsonl,rows.jsonl"]
    row = '{"prompt": "a cat", "response": "an animal that likes fish"}\n'
    (tmp_path / "rows.jsonl").write_text(row * 8)
    done = trainer("--multirun", *SMALL, *words)
    assert done.returncode == 3, done.stderr
    (sweep,) = (tmp_path / "outputs").iterdir()
    assert re.fullmatch(r"sweep-path-[0-9a-f]{8}", sweep.name)
    assert "exit code 3" in (sweep / "summary.md").read_text()
    (finished,) = sweep.glob("*-rows-*")
    assert (finished / "artifacts" / "lora" / "adapter.lora.h5").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"rows.jsonl", "outputs"}


def ends(error):
    def call():
        raise error

    return call


def test_an_error_becomes_its_code_and_its_message(capsys):
    error = DataError(key="rows.jsonl:3", expected="JSON", received="text", fix="mend")
    assert exit_code_of(ends(error), debug=False) == 3
    assert capsys.readouterr().err == f"{error.message()}\n"


def test_a_bug_says_where_and_how_to_see_more(capsys):
    assert exit_code_of(ends(ZeroDivisionError("oh")), debug=False) == 1
    told = capsys.readouterr().err
    assert "ZeroDivisionError: oh" in told
    assert "debug=true shows the whole traceback" in told
    assert "Traceback" not in told


def test_memory_and_the_user_have_codes_of_their_own(capsys):
    assert exit_code_of(ends(MemoryError()), debug=False) == 5
    assert "trainer.microbatch_size" in capsys.readouterr().err
    assert exit_code_of(ends(KeyboardInterrupt()), debug=False) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_code_passes_through():
    assert exit_code_of(lambda: 83, debug=False) == 83
    with pytest.raises(SystemExit, match="7"):
        exit_code_of(ends(SystemExit(7)), debug=False)


def test_devices_are_simulated_before_jax_is_there(repository):
    code = (
        "from trainer.config.simulated import simulate_devices as s; s(6);"
        "import jax; print(jax.device_count()); s(6); s(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert done.stdout.strip() == "6", done.stderr


def test_another_number_of_devices_is_refused_once_jax_is_there():
    import jax  # noqa: F401

    with pytest.raises(ConfigError, match="one number in all jobs"):
        simulate_devices(3)


@pytest.mark.parametrize(
    ("call", "code"),
    [(lambda: 83, 83), (lambda: ending.sys.exit(7), 7), (lambda: ending.sys.exit(), 0)],
)
def test_whoever_asked_is_told_the_code_before_the_end(monkeypatch, call, code):
    told = []
    monkeypatch.setattr(interruption, "before_leaving", [])
    ending.when_ending(told.append)
    with pytest.raises(SystemExit) as caught:
        ending.end(call, debug=False)
    assert (told, caught.value.code) == ([code], code)
