"""Managed jobs of SkyPilot, with a recorder that takes their machines away."""

import json
import sys

import pytest
import yaml

MACHINE = """
import json, os, pathlib, sys, time
place, home = pathlib.Path(os.environ["RECORDER"]), pathlib.Path.home()
codes = json.loads((place / "life").read_text())
starts = len(list(home.glob("began*")))
(home / f"began{starts or ''}").touch()
(place / "words").write_text(json.dumps(sys.argv[3:]))
code = codes[min(starts, len(codes) - 1)]
time.sleep(60 if code == "runs" else 0)
sys.exit(code)
"""


@pytest.fixture
def sky(tools, launched, repository, tmp_path):
    """Play a job on machines whose Python trains as planned; return what came of it."""

    def play(*lives, typed=()):
        tools.put("sky", "sky.py")
        program = tmp_path / "machine.py"
        program.write_text(MACHINE)
        python = tmp_path / "tools" / "python"  # that of the image
        trains = f'[ "$2" = trainer ] && exec "{sys.executable}" "{program}" "$@"'
        python.write_text(f'#!/bin/sh\n{trains}\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        (tools.place / "lives.json").write_text(json.dumps(lives))
        words = ["launch.submit=true", "launch.image=registry/trainer:1", *typed]
        assert launched("skypilot", *words) == 0
        return json.loads((tools.place / "job.json").read_text())

    return play


@pytest.mark.parametrize(
    ("lives", "outcome"),
    [
        ([{"codes": [0]}], ["SUCCEEDED", 0]),
        ([{"codes": [6, 0]}], ["SUCCEEDED", 0]),  # by the supervisor, on its machine
        ([{"codes": ["runs"], "preempted": True}, {"codes": [0]}], ["SUCCEEDED", 1]),
        ([{"codes": [3]}], ["FAILED", 0]),
    ],
)
def test_a_managed_job_survives_its_machines(
    sky, lives, outcome, repository, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    assert sky(*lives) == outcome


def test_nodes_that_are_no_tpus_are_told_who_they_are(
    sky, tools, repository, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    typed = ["launch.accelerator=H100:8", "launch.processes=2", "mesh=2x8"]
    assert sky({"codes": [0]}, typed=typed) == ["SUCCEEDED", 0]
    assert json.loads((tools.place / "words").read_text()) == [
        *("mesh=2x8", "run.root=gs://bucket/runs"),
        "distributed.coordinator=10.0.0.1:8476",
        *("distributed.num_processes=2", "distributed.process_index=1"),
    ]


def test_sky_gets_the_task_and_the_names_of_secrets(tools, launched, monkeypatch):
    tools.put("sky", "sky.py")
    monkeypatch.setenv("WANDB_API_KEY", "canary-4711")
    typed = ["launch.secrets=[WANDB_API_KEY]", "launch.submit=true"]
    assert launched("skypilot", *typed) == 0
    (call,) = tools.calls("sky")
    assert call == [
        *("jobs", "launch", "--yes", "--secret", "WANDB_API_KEY", "skypilot.yaml")
    ]
    task = yaml.safe_load((tools.place / "given.yaml").read_text())
    assert task["secrets"] == {"WANDB_API_KEY": None}
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [83]
