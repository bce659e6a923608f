"""Launches on TPUs, with a recorder that answers as gcloud does through every state."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from launch.command import job_name
from tests.launch.conftest import NEEDS, RECORDERS
from trainer.__main__ import compose


class Cloud:
    """A cloud of one TPU: what becomes of it is planned, what is asked is noted."""

    def __init__(self, place, repository, monkeypatch):
        self.place = place / "cloud"
        self.place.mkdir()
        tools = place / "tools"
        tools.mkdir()
        for name in ("python3", "docker", "sudo"):
            shutil.copy(f"{RECORDERS}/{name}", tools)
        gcloud = tools / "gcloud"
        gcloud.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -S -E "{RECORDERS}/gcloud.py" "$@"\n'
        )
        gcloud.chmod(0o755)
        self.source = place / "source"
        self._make_source(repository)
        monkeypatch.setattr("launch.targets.conf_directory", lambda: self.source / "c")
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        monkeypatch.setenv("RECORDER", str(self.place))
        monkeypatch.setenv("RECORDER_PYTHON", sys.executable)
        monkeypatch.setenv("POLL_SECONDS", "0.05")
        monkeypatch.chdir(place)

    def _make_source(self, repository):
        """Make a repository with our launch/, and a recorder where training begins."""
        for folder in ("launch", "trainer/config"):
            shutil.copytree(repository / folder, self.source / folder)
        # else a trainer that is installed comes before this folder without a name
        shutil.copy(repository / "trainer/__init__.py", self.source / "trainer")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(repository / name, self.source)
        shutil.copy(f"{RECORDERS}/training.py", self.source / "trainer/__main__.py")
        (self.source / "untracked").write_text("stays here")
        for words in (["init", "-q"], ["add", "launch", "trainer", "*.*"]):
            subprocess.run(["git", *words], cwd=self.source, check=True)

    def plan(self, *lives, workers=1, **more):
        plan = {"exists": False, "life": -1, "workers": workers}
        plan["lives"] = [{"states": s, "codes": c} for s, c in lives]
        (self.place / "plan.json").write_text(json.dumps(plan | more))

    def _read(self, name):
        file = self.place / name
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def verbs(self):
        """Return what was asked of the cloud, describe and ssh left out."""
        calls = [c for c in self._read("calls.jsonl") if c[0] == "compute"]
        return [c[3] for c in calls if c[3] not in ("describe", "ssh", "scp")]

    @property
    def calls(self):
        return self._read("calls.jsonl")

    @property
    def trained(self):
        return self._read("trained.jsonl")


@pytest.fixture
def cloud(tmp_path, repository, monkeypatch):
    made = Cloud(tmp_path, repository, monkeypatch)
    yield made
    if (made.place / "plan.json").exists():
        subprocess.run(
            ["gcloud", "compute", "tpus", "tpu-vm", "delete", "x", "--quiet"],
            capture_output=True,
        )


def script(target, verb, *typed):
    name = job_name(compose([f"launch={target}", *NEEDS[target], *typed]))
    return subprocess.run(
        ["bash", f"outputs/launch/{name}/tpu.sh", verb],
        capture_output=True,
        text=True,
        timeout=60,
    )


RUNNING = (["READY"], ["runs"])
WAITING = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]


def test_a_pod_is_made_and_every_worker_trains(cloud, launched):
    cloud.plan((["READY"], [0]), workers=2)
    typed = ("preset=gemma2_9b_en", "mesh=1x8", "launch.submit=true")
    assert launched("tpu_vm", *typed) == 0
    done = script("tpu_vm", "wait", *typed)
    assert done.returncode == 0, done.stderr
    assert cloud.verbs == ["create"]
    homes = {note["home"][-7:] for note in cloud.trained}
    assert homes == {"worker0", "worker1"}
    for note in cloud.trained:
        assert note["words"] == [
            *("preset=gemma2_9b_en", "mesh=1x8", "run.root=gs://bucket/runs")
        ]
    create = next(call for call in cloud.calls if call[3:4] == ["create"])
    assert create[4:] == [
        "gemma2-9b-en-wordnet-" + create[4][-8:],
        *("--accelerator-type=v5litepod-8", "--version=v2-alpha-tpuv5-lite"),
        "--zone=us-west4-a",
    ]


def test_only_what_git_tracks_is_copied(cloud, launched):
    cloud.plan(RUNNING)
    assert launched("tpu_vm", "launch.submit=true") == 0
    (folder,) = [p for p in (cloud.place / "worker0").iterdir() if p.is_dir()]
    assert (folder / "launch/local.py").exists()
    assert not (folder / "untracked").exists()
    assert "-m uv pip install" in (cloud.place / "installed").read_text()


def test_status_logs_and_stop_reach_the_workers(cloud, launched):
    cloud.plan(RUNNING, workers=2)
    assert launched("tpu_vm", "launch.submit=true") == 0
    assert script("tpu_vm", "status").stdout.split() == ["running"] * 2
    wait_for(lambda: len(cloud.trained) == 2)
    script("tpu_vm", "stop")
    done = script("tpu_vm", "wait")
    assert done.returncode == 83
    assert "ended with 83" in done.stderr
    (log,) = (cloud.place / "worker0").glob("*/log")
    assert "step 1/250" in log.read_text()
    assert script("tpu_vm", "delete").returncode == 0
    assert cloud.verbs == ["create", "delete"]


def wait_for(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_pod_that_is_there_is_used_and_starts_no_second_training(cloud, launched):
    cloud.plan(RUNNING)
    assert launched("tpu_vm", "launch.submit=true") == 0
    wait_for(lambda: len(cloud.trained) == 1)
    assert launched("tpu_vm", "launch.submit=true") == 0
    assert script("tpu_vm", "status").stdout.split() == ["running"]
    assert cloud.verbs == ["create"]
    assert len(cloud.trained) == 1


def test_a_pod_in_another_state_is_told(cloud, launched, capfd):
    cloud.plan((["STOPPED"], [0]), exists=True, life=0)
    assert launched("tpu_vm", "launch.submit=true") == 2
    assert "is STOPPED, not READY" in capfd.readouterr().err


def test_the_workers_restart_a_lost_training_themselves(cloud, launched):
    cloud.plan((["READY"], [6, 0]))
    assert launched("tpu_vm", "launch.submit=true") == 0
    assert script("tpu_vm", "wait").returncode == 0
    assert len(cloud.trained) == 2


@pytest.mark.parametrize("code", [2, 3, 8])
def test_the_code_of_a_failed_training_is_the_code_of_the_wait(cloud, launched, code):
    cloud.plan((["READY"], [code]))
    assert launched("tpu_vm", "launch.submit=true", "launch.max_restarts=0") == 0
    assert script("tpu_vm", "wait").returncode == code


def test_keys_come_from_the_cloud_by_name(cloud, launched):
    cloud.plan((["READY"], [0]))
    typed = ("launch.submit=true", "launch.secrets=[WANDB_API_KEY]")
    assert launched("tpu_vm", *typed) == 0
    assert script("tpu_vm", "wait", *typed).returncode == 0
    assert {note["secret"] for note in cloud.trained} == {"value-of-WANDB_API_KEY"}
    assert "value-of" not in json.dumps(cloud.calls)


def test_an_image_trains_instead_of_copied_code(cloud, launched, monkeypatch):
    cloud.plan(RUNNING)
    monkeypatch.setenv("PYTHONPATH", str(cloud.source))
    typed = ("launch.submit=true", "launch.image=registry.pkg.dev/p/trainer:1")
    typed += ("launch.secrets=[WANDB_API_KEY]", "mesh=1x8")
    assert launched("tpu_vm", *typed) == 0
    wait_for(lambda: len(cloud.trained) == 1)
    script("tpu_vm", "stop", *typed)
    assert script("tpu_vm", "wait", *typed).returncode == 83
    assert cloud.trained[0]["secret"] == "value-of-WANDB_API_KEY"
    said = (cloud.place / "docker").read_text()
    assert "docker pull registry.pkg.dev/p/trainer:1" in said
    assert "-e WANDB_API_KEY registry.pkg.dev" in said
    assert "value-of" not in said
    configured = ["auth", "configure-docker", "registry.pkg.dev", "--quiet"]
    assert configured in cloud.calls
    assert not (cloud.place / "installed").exists()


def test_a_queued_resource_is_waited_for_and_given_back(cloud, launched, capfd):
    cloud.plan((WAITING, [0]))
    assert launched("tpu_queued", "launch.submit=true") == 0
    assert cloud.verbs == ["create", "delete"]
    create = next(call for call in cloud.calls if call[3:4] == ["create"])
    name = create[4]
    assert create[5:] == [
        *(f"--node-id={name}", "--accelerator-type=v5litepod-8"),
        *("--runtime-version=v2-alpha-tpuv5-lite", "--spot", "--zone=us-west4-a"),
    ]
    output = capfd.readouterr()
    assert "the training ended with 0" in output.err
    assert "step 1/250" in output.out  # the last lines of worker 0


def test_a_queued_resource_that_was_taken_away_is_made_again(cloud, launched, capfd):
    taken = [*WAITING, "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED"]
    cloud.plan((taken, ["runs"]), (taken, ["runs"]), (WAITING, [0]))
    assert launched("tpu_queued", "launch.submit=true") == 0
    assert cloud.verbs == ["create", "delete"] * 3
    assert {note["life"] for note in cloud.trained} == {0, 1, 2}
    assert "was taken away; restart 2 of 50" in capfd.readouterr().err


def test_a_queued_resource_is_made_again_only_so_often(cloud, launched, capfd):
    taken = [*WAITING, "SUSPENDING", "SUSPENDED"]
    cloud.plan(*[(taken, ["runs"])] * 3)
    assert launched("tpu_queued", "launch.submit=true", "launch.max_restarts=2") == 83
    assert cloud.verbs.count("create") == 3
    assert "2 restarts are all there may be" in capfd.readouterr().err


def test_what_cannot_be_made_is_not_asked_for_again(cloud, launched, capfd):
    cloud.plan((["WAITING_FOR_RESOURCES", "FAILED"], [0]))
    assert launched("tpu_queued", "launch.submit=true") == 2
    assert cloud.verbs == ["create"]
    assert "could not be made" in capfd.readouterr().err


def test_a_node_that_fails_later_is_made_again(cloud, launched):
    cloud.plan(([*WAITING, "ACTIVE", "FAILED"], ["runs"]), (WAITING, [0]))
    assert launched("tpu_queued", "launch.submit=true") == 0
    assert cloud.verbs == ["create", "delete"] * 2


def test_a_network_that_fails_is_not_taken_for_a_preemption(cloud, launched, capfd):
    cloud.plan((WAITING, [0]), unreachable=3)
    assert launched("tpu_queued", "launch.submit=true") == 0
    assert cloud.verbs == ["create", "delete"]
    assert "gcloud: ERROR: gcloud crashed" in capfd.readouterr().err


def test_a_final_end_gives_the_machines_back_and_is_the_exit_code(cloud, launched):
    cloud.plan((WAITING, [3]))
    assert launched("tpu_queued", "launch.submit=true") == 3
    assert cloud.verbs == ["create", "delete"]


def test_several_slices_are_nodes_of_one_resource(cloud, launched):
    cloud.plan((WAITING, [0]))
    assert launched("tpu_queued", "launch.submit=true", "mesh.slices=4") == 0
    create = next(call for call in cloud.calls if call[3:4] == ["create"])
    assert create[5:7] == ["--node-count=4", f"--node-prefix={create[4]}"]
    ssh = [call for call in cloud.calls if call[3:4] == ["ssh"]]
    assert all("--node=all" in call or "--node=0" in call for call in ssh)
