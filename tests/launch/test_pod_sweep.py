"""A sweep on a pod: a recorder as W&B's agent, and every process gets its overrides."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import yaml

from launch.pod_sweep import is_first, run_trial
from launch.sweep import render_sweep
from trainer.__main__ import compose

TRIALS = [["lora.rank=4", "seed=1"], ["lora.rank=8", "seed=2"], ["lora.rank=16"]]
AGENT = """\
#!{python}
# Answers as `wandb agent` does: a program a trial, its code noted, then the next.
import json, os, signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(0)))
assert sys.argv[1:] == ["agent", "--forward-signals", "me/gemma/ab12"], sys.argv
codes = []
for number, words in enumerate({trials!r}):
    done = subprocess.run(
        [sys.executable, "-m", "launch.pod_sweep", *words],
        env=dict(os.environ, WANDB_RUN_ID=f"trial{{number}}"),
    )
    codes.append(done.returncode)
    json.dump(codes, open({codes!r}, "w"))
"""
TRAINING = """\
import os, sys
index = next(w[-1] for w in sys.argv if w.startswith("distributed.process_index="))
words = [w for w in sys.argv[1:] if not w.startswith("distributed.")]
with open({record!r} + index, "a") as file:
    print(*words, os.environ.get("WANDB_RUN_ID", "no id"), file=file)
code = {codes!r}.get(" ".join(words[1:]), 0)
sys.exit(code)
"""


@pytest.fixture
def pod(tmp_path, repository):
    """Run three processes of a sweep and return their codes and what each was told."""

    def run(codes):
        tools = tmp_path / "tools"
        tools.mkdir()
        agent = tools / "wandb"
        noted = str(tmp_path / "codes.json")
        agent.write_text(
            AGENT.format(python=sys.executable, trials=TRIALS, codes=noted)
        )
        agent.chmod(0o755)
        program = tmp_path / "training.py"
        record = str(tmp_path / "process")
        program.write_text(textwrap.dedent(TRAINING).format(record=record, codes=codes))
        command = [sys.executable, "-m", "launch.pod_sweep", "--sweep=me/gemma/ab12"]
        command += [f"--exchange={tmp_path / 'exchange'}", "--"]
        command += [sys.executable, str(program), "+preset=gemma2_tiny_en"]
        environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "LAUNCH_START": "first",
        }
        processes = [
            subprocess.Popen(
                [*command, f"distributed.process_index={index}"],
                cwd=repository,
                env=environment,
            )
            for index in range(3)
        ]
        ended = [process.wait(timeout=60) for process in processes]
        told = [
            (tmp_path / f"process{index}").read_text().splitlines()
            for index in range(3)
        ]
        return ended, told, json.loads((tmp_path / "codes.json").read_text())

    return run


def test_every_process_gets_the_overrides_of_every_trial(pod):
    ended, told, codes = pod({"lora.rank=8 seed=2": 8})
    wanted = [" ".join(["+preset=gemma2_tiny_en", *words]) for words in TRIALS]
    assert told[0] == [f"{words} trial{n}" for n, words in enumerate(wanted)]
    assert told[1] == told[2] == [f"{words} no id" for words in wanted]
    assert codes == [0, 8, 0]  # a trial that fails is the agent's to judge
    assert ended == [0, 0, 0]


def test_no_trial_follows_the_end_of_a_sweep(tmp_path, monkeypatch):
    (tmp_path / "0.json").write_text('{"words": []}')
    (tmp_path / "1.json").write_text('{"end": 83}')
    monkeypatch.setenv("LAUNCH_SWEEP_EXCHANGE", str(tmp_path))
    assert run_trial(["lora.rank=4"]) == 83
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.json", "1.json"]


def test_a_preempted_trial_is_the_last(pod):
    ended, told, codes = pod({"lora.rank=8 seed=2": 83})
    assert [len(lines) for lines in told] == [2, 2, 2]
    assert ended == [83, 83, 83]
    assert codes[:1] == [0]


def test_local_processes_share_a_sweep(tmp_path, launched, monkeypatch, repository):
    """From the command line on; only the training itself is a recorder."""
    tools = tmp_path / "tools"
    tools.mkdir()
    codes = str(tmp_path / "codes.json")
    agent = AGENT.format(python=sys.executable, trials=TRIALS, codes=codes)
    program = tmp_path / "training.py"
    program.write_text(TRAINING.format(record=str(tmp_path / "process"), codes={}))
    python = f'[ "$2" = trainer ] && shift && exec "{sys.executable}" "{program}" "$@"'
    python = f'#!/bin/sh\n{python}\nexec "{sys.executable}" "$@"\n'
    for name, text in (("wandb", agent), ("python", python)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setattr("launch.start.sys.executable", str(tools / "python"))
    monkeypatch.chdir(tmp_path)
    typed = ["launch.processes=3", "launch.sweep=me/gemma/ab12", "seed=7"]
    assert launched("local", *typed) == 0
    wanted = [" ".join(["trainer seed=7", *words]) for words in TRIALS]
    for index in range(3):
        told = (tmp_path / f"process{index}").read_text().splitlines()
        assert told == [
            f"{words} {'no id' if index else f'trial{number}'}"
            for number, words in enumerate(wanted)
        ]


@pytest.mark.parametrize(
    ("words", "environment", "first"),
    [
        ([], {}, True),
        (["distributed.process_index=0"], {"SLURM_PROCID": "1"}, True),
        (["distributed.process_index=2"], {}, False),
        ([], {"SLURM_PROCID": "0"}, True),
        ([], {"SLURM_PROCID": "3"}, False),
        ([], {"OMPI_COMM_WORLD_RANK": "1"}, False),
        ([], {"TPU_WORKER_ID": "0"}, True),
        ([], {"TPU_WORKER_ID": "1"}, False),
        ([], {"MEGASCALE_SLICE_ID": "1", "TPU_WORKER_ID": "0"}, False),
        ([], {"MEGASCALE_SLICE_ID": "0", "TPU_WORKER_ID": "0"}, True),
    ],
)
def test_process_0_is_known_without_jax(words, environment, first):
    assert is_first(words, environment) is first


def test_a_sweep_file_for_pods_calls_what_tells_all_processes():
    sweep = yaml.safe_load(render_sweep({"seed": [1, 2]}, on_pod=True))
    assert sweep["command"] == [
        *("${env}", "${interpreter}", "-m", "launch.pod_sweep"),
        *("tracker=wandb", "${args_no_hyphens}"),
    ]
    assert compose(["tracker=wandb", "seed=2"]).seed == 2
