"""Every message of a launch, by the words that cause it."""

import random
import re
import string

import pytest

from trainer.__main__ import compose
from trainer.config.errors import ConfigError, ConfigErrors
from trainer.config.keys import all_keys
from trainer.config.launch_checks import (
    _NAMES,
    _READS,
    MAX_JOB_LETTERS,
    launch_problems,
)
from trainer.config.limits import CHOICES
from trainer.config.schema import RunConfig

BUCKET = "run.root=gs://bucket/runs"
TPU = ("launch=tpu_vm", BUCKET)
GKE = ("launch=gke", BUCKET, "launch.image=registry/trainer:1")
CASES = [
    # what was typed, key, part of `expected`, fix
    ([*TPU, "launch.job=My_Job"], "launch.job", "small letters", "launch.job=mine"),
    ([*TPU, "launch.job=" + "a" * 41], "launch.job", "at most 40", "launch.job=mine"),
    ([*TPU, "launch.project=x"], "launch.project", "project's id", "=my-project"),
    ([*TPU, "launch.zone=mars"], "launch.zone", "zone", "launch.zone=us-west4-a"),
    ([*TPU, "launch.zone=null"], "launch.zone", "tpu_vm needs", "=us-west4-a"),
    ([*TPU, "launch.accelerator=-x"], "launch.accelerator", "name of", "v5litepod-8"),
    ([*TPU, "launch.runtime=A"], "launch.runtime", "software version", "tpuv5-lite"),
    ([*TPU, "launch.image=-v"], "launch.image", "container image", "trainer:1"),
    ([*TPU, "launch.image=REG/trainer:1"], "launch.image", "lower case", "trainer:1"),
    ([*TPU, "launch.image=a.b/Me/t:1"], "launch.image", "lower case", "trainer:1"),
    ([*TPU, "launch.processes=2"], "launch.processes", "does not read", "launch=local"),
    ([*TPU, "launch.sweep=abc"], "launch.sweep", "ENTITY/PROJECT/ID", "ab12cd34"),
    ([*TPU, "launch.secrets=[wandb]"], "launch.secrets", "never their values", "KEY]"),
    (["launch=tpu_vm"], "run.root", "share no folder", "run.root=gs://BUCKET/runs"),
    (["launch=tpu_queued"], "run.root", "taken away", "run.root=gs://BUCKET/runs"),
    (["launch=skypilot"], "run.root", "skypilot", "run.root=gs://BUCKET/runs"),
    (["launch=gke", BUCKET], "launch.image", "which launch=gke needs", "trainer:1"),
    ([*GKE, "launch.cluster=A_"], "launch.cluster", "GKE cluster", "cluster=mine"),
    (["launch=slurm", "launch.partition=-p"], "launch.partition", "partition", "=gpu"),
    (["launch=slurm", "launch.account=-A"], "launch.account", "account", "=mine"),
    (["launch=slurm", "launch.limit_minutes=0"], "launch.limit_minutes", "1 or", "="),
    (["launch=slurm", "launch.grace_seconds=0"], "launch.grace_seconds", "1 or", "120"),
    (["launch=slurm", "launch.limit_minutes=1"], "launch.limit_minutes", "120 s", "=3"),
    (["launch=slurm", "launch.limit_minutes=2"], "launch.limit_minutes", "120 s", "=3"),
    (["launch=local", "launch.max_restarts=-1"], "launch.max_restarts", "0 or", "=10"),
    (["launch.processes=0"], "launch.processes", "1 or more", "launch.processes=null"),
    (["launch.processes=4"], "launch.processes", "null, since", "launch=local launch."),
    (["launch.spot=true"], "launch.spot", "false, since launch=none", "launch=tpu_vm"),
    (["launch.name=lcal"], "launch.name", "none, local", "launch.name=local"),
]


@pytest.mark.parametrize(("typed", "key", "expected", "fix"), CASES)
def test_a_wrong_launch_is_told_with_what_would_be_right(typed, key, expected, fix):
    with pytest.raises(ConfigError) as caught:
        compose(typed)
    assert caught.value.key == key
    assert expected in caught.value.expected
    assert fix in caught.value.fix


@pytest.mark.parametrize("where", ["tpu_vm", "none"])
def test_the_value_of_a_secret_is_not_repeated(where):
    typed = [f"launch={where}", BUCKET, "launch.secrets=['WANDB_API_KEY=canary123']"]
    with pytest.raises(ConfigError) as caught:
        compose(typed)
    problems = getattr(caught.value, "problems", [caught.value])
    assert {problem.key for problem in problems} == {"launch.secrets"}
    assert "canary123" not in "".join(problem.message() for problem in problems)


def test_several_problems_of_a_launch_are_told_at_once():
    with pytest.raises(ConfigErrors) as caught:
        compose(["launch=tpu_queued", "launch.zone=mars", "launch.job=No"])
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["launch.job", "launch.zone", "run.root"]


def test_a_mounted_disk_is_as_good_as_a_bucket():
    assert compose(["launch=tpu_vm", "run.root=/mnt/runs"]).launch.name == "tpu_vm"


def test_a_limit_with_time_before_the_warning_passes():
    typed = ["launch=slurm", "launch.limit_minutes=3"]
    assert compose(typed).launch.limit_minutes == 3
    typed = ["launch=slurm", "launch.limit_minutes=1", "launch.grace_seconds=59"]
    assert compose(typed).launch.grace_seconds == 59


def test_tags_and_digests_of_images_may_have_capitals():
    image = "host.dev:5000/me/trainer:V1-RC@sha256:0123abcd"
    typed = [*TPU, "launch.zone=us-west4-a", "launch.accelerator=v5litepod-8"]
    assert compose([*typed, f"launch.image='{image}'"]).launch.image == image


def test_every_key_is_read_by_some_target():
    fields = {name for names in _READS.values() for name in names}
    known = {key[7:] for key in all_keys() if key.startswith("launch.")}
    assert known - fields == {"name", "submit", "max_restarts"}
    assert set(_READS) == set(CHOICES["launch.name"])
    assert MAX_JOB_LETTERS == 40


def test_a_mesh_has_the_simulated_devices_of_all_local_processes():
    typed = ["launch=local", "launch.processes=4", "device.simulated=2"]
    assert compose([*typed, "mesh=2x4"]).mesh.shape == "2x4"
    with pytest.raises(ConfigError, match="the number of devices, 8"):
        compose([*typed, "mesh=1x2"])


@pytest.mark.parametrize("key", _NAMES)
def test_a_name_that_passes_needs_no_quotes_anywhere(key):
    """Of 1,000 names, right ones with a letter or two put in, none breaks out."""
    draw = random.Random(key)
    example, passed = _NAMES[key][2], 0
    for _ in range(1000):
        letters = list(example)
        for _ in range(draw.randint(1, 2)):
            where = draw.randint(0, len(letters))
            letters.insert(where, draw.choice(string.printable + "é\u2028"))
        config, name = RunConfig(), "".join(letters)
        setattr(config.launch, key.removeprefix("launch."), name)
        if not any(p.received == name and p.key == key for p in wrong_names(config)):
            passed += 1
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", name)
    assert passed > 50


def wrong_names(config):
    config.launch.name = "none"
    return [p for p in launch_problems(config) if "does not read it" not in p.expected]
