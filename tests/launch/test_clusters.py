"""Launches on clusters, with recorders for sbatch, kubectl and sky on PATH."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import yaml

from trainer.config.errors import ConfigError

RECORDERS = os.path.join(os.path.dirname(__file__), "recorders")


class Tools:
    def __init__(self, place, monkeypatch):
        self.place, self._monkeypatch = place / "notes", monkeypatch
        self.place.mkdir()
        self._folder = place / "tools"
        self._folder.mkdir()
        monkeypatch.setenv("PATH", f"{self._folder}:/usr/bin:/bin")
        monkeypatch.setenv("RECORDER", str(self.place))
        monkeypatch.chdir(place)

    def put(self, name, recorder="note.py"):
        tool = self._folder / name
        call = f'"{sys.executable}" "{RECORDERS}/{recorder}"'
        named = f" {name}" if recorder == "note.py" else ""
        tool.write_text(f'#!/bin/sh\nexec {call}{named} "$@"\n')
        tool.chmod(0o755)

    def slurm(self):
        self.put("sbatch", "sbatch.py")
        self.put("srun", "srun.py")
        self.put("scontrol")
        return self

    def calls(self, name):
        file = self.place / f"{name}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    @property
    def log(self):
        (file,) = self.place.glob("*.log")
        return file.read_text()

    @property
    def ended(self):
        return (self.place / "ended").read_text()


@pytest.fixture
def tools(tmp_path, monkeypatch):
    return Tools(tmp_path, monkeypatch)


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


def test_kubectl_gets_the_manifest_that_is_shown(tools, rendered, launched):
    tools.put("kubectl", "kubectl.py")
    typed = ["launch.secrets=[WANDB_API_KEY]", "mesh=2x4"]
    assert launched("gke", *typed, "launch.submit=true") == 0
    assert tools.calls("kubectl") == [["apply", "-f", "jobset.yaml"]]
    given = yaml.safe_load((tools.place / "given.yaml").read_text())
    command = ["python", "-m", "trainer", "mesh=2x4", "run.root=gs://bucket/runs"]
    pod = given["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == command


def test_a_refusal_of_the_tool_is_the_end(tools, launched, capfd):
    tools.put("kubectl", "kubectl.py")
    text = 'error: no matches for kind "JobSet" in version "jobset.x-k8s.io/v1alpha2"'
    (tools.place / "kubectl.answer").write_text(text)
    assert launched("gke", "launch.submit=true") == 1
    assert text in capfd.readouterr().err


@pytest.mark.parametrize(
    ("starts", "outcome"),
    [
        ([[0, 0]], ["Completed", 0]),
        ([[83, 83], [6, 0], [0, 0]], ["Completed", 2]),
        ([[137, 6], [0, 0]], ["Completed", 1]),  # a process that the kernel killed
        ([["evicted 137", 6], [0, 0]], ["Completed", 1]),
        ([["evicted 1", 6], [0, 0]], ["Completed", 1]),
        ([[2, 2]], ["Failed", 0]),
        ([[83, 83], [3, 6]], ["Failed", 1]),
        ([[6, 6]] * 4, ["Failed", 3]),
    ],
)
def test_a_set_of_pods_starts_again_on_what_that_mends(
    tools, launched, starts, outcome
):
    tools.put("kubectl", "kubectl.py")
    ends = [[end_of(pod) for pod in pods] for pods in starts]
    (tools.place / "pods.json").write_text(json.dumps(ends))
    assert launched("gke", "launch.submit=true", "launch.max_restarts=3") == 0
    assert json.loads((tools.place / "jobset.json").read_text()) == outcome


def end_of(pod):
    if isinstance(pod, int):
        return {"code": pod}
    return {"code": int(pod.split()[1]), "disrupted": True}


def test_xpk_gets_the_same_command_image_and_restarts(tools, rendered, tmp_path):
    tools.put("xpk")
    typed = ["launch.cluster=mine", "launch.accelerator=v5litepod-16", "mesh.slices=2"]
    files = rendered("gke", *typed, words=["generate.prompt=it's; $HOME", "mesh=4x8"])
    (tmp_path / "xpk.sh").write_text(files["xpk.sh"])
    subprocess.run(["bash", "xpk.sh"], cwd=tmp_path, check=True)
    (call,) = tools.calls("xpk")
    assert call[:2] == ["workload", "create"]
    given = dict(word.removeprefix("--").split("=", 1) for word in call[2:])
    command = shlex.split(given.pop("command"))
    assert command[3:] == ["generate.prompt=it's; $HOME", "mesh=4x8"]
    assert given.pop("workload").startswith("gemma2-tiny-en-wordnet-")
    assert given == {
        "cluster": "mine",
        "tpu-type": "v5litepod-16",
        "num-slices": "2",
        "docker-image": "registry/trainer:1",
        "max-restarts": "50",
        "restart-on-exit-codes": "6,83",
        "termination-grace-period-seconds": "120",
    }


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


@pytest.mark.parametrize(
    ("target", "tool"), [("gke", "kubectl"), ("slurm", "sbatch"), ("skypilot", "sky")]
)
def test_a_missing_tool_is_told(launched, target, tool, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=f"{tool} on PATH"):
        launched(target, "launch.submit=true")


def test_what_would_run_is_shown_and_nothing_is_written(
    launched, capfd, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert launched("slurm", "launch.processes=2") == 0
    shown = capfd.readouterr()
    assert shown.out.startswith("#!/usr/bin/env bash\n#SBATCH --job-name=gemma2-tiny")
    assert "launch.submit=true would write this and run: sbatch" in shown.err
    assert list(tmp_path.iterdir()) == []
