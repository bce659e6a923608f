"""JobSets and xpk, with recorders that take what they are given."""

import json
import shlex
import subprocess

import pytest
import yaml


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
