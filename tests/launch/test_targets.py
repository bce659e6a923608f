"""Rendered files against their schemas, shellcheck and the words that went in."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from launch.accelerators import tpu_slice
from launch.command import job_name, training_words
from launch.targets import FINAL_CODES, render_target
from tests.launch.conftest import NEEDS
from tests.launch.test_rendering import HOSTILE, fuzzed
from trainer.__main__ import compose
from trainer.config import errors
from trainer.config.errors import ConfigError

VARIANTS = {
    "tpu_vm": [
        [],
        ["launch.secrets=[WANDB_API_KEY,HF_TOKEN]", "launch.project=my-project"],
        ["launch.image=registry/trainer:1", "launch.secrets=[HF_TOKEN]"],
        ["launch.spot=true", "launch.sweep=me/gemma/ab12"],
        ["launch.image=registry/trainer:1", "launch.sweep=me/gemma/ab12"],
    ],
    "gke": [
        [],
        ["launch.secrets=[WANDB_API_KEY]", "launch.spot=true", "mesh.slices=4"],
        ["launch.processes=1", "launch.sweep=me/gemma/ab12"],
        ["launch.cluster=mine", "launch.project=my-project", "launch.zone=us-west4-a"],
        ["launch.accelerator=v5p-32", "launch.job=mine"],
    ],
    "slurm": [
        [],
        ["launch.accelerator=gpu:8", "launch.processes=4", "launch.partition=gpu"],
        ["launch.account=me", "launch.secrets=[WANDB_API_KEY]"],
        ["launch.sweep=me/gemma/ab12", "launch.grace_seconds=300"],
    ],
    "skypilot": [
        [],
        ["launch.accelerator=H100:8", "launch.processes=2", "launch.spot=false"],
        ["launch.secrets=[WANDB_API_KEY]", "launch.image=registry/trainer:1"],
    ],
}
VARIANTS["tpu_queued"] = [*VARIANTS["tpu_vm"], ["mesh.slices=4"]]
ALL = [(name, typed) for name, variants in VARIANTS.items() for typed in variants]
SHELLCHECK = shutil.which("shellcheck") or Path(sys.executable).with_name("shellcheck")
SBATCH = (
    *("job-name", "nodes", "ntasks-per-node", "gres", "partition", "account", "time"),
    *("signal", "requeue", "open-mode", "output"),
)


def shells(files):
    """Return every script of the files, those inside YAML included."""
    found = {n: text for n, text in files.items() if n.endswith((".sh", ".sbatch"))}
    if "skypilot.yaml" in files:
        task = yaml.safe_load(files["skypilot.yaml"])
        for part in ("setup", "run"):
            if part in task:
                found[part] = f"#!/usr/bin/env bash\n{task[part]}"
    return found


@pytest.mark.parametrize("target", VARIANTS)
def test_scripts_are_clean_by_shellcheck(rendered, target, tmp_path):
    words = ["preset=gemma2_9b_en", "mesh=2x8", "generate.prompt='what is it?'"]
    for number, typed in enumerate(VARIANTS[target]):
        for name, text in shells(rendered(target, *typed, words=words)).items():
            (tmp_path / f"{number}-{name}").write_text(text)
    files = sorted(tmp_path.iterdir())
    done = subprocess.run([SHELLCHECK, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("target", "typed"), ALL)
def test_manifests_fit_their_schemas(repository, rendered, target, typed):
    files = rendered(target, *typed, words=HOSTILE)
    for name, schema in (("jobset.yaml", "jobset"), ("skypilot.yaml", "skypilot")):
        if name in files:
            path = repository / f"tests/launch/schemas/{schema}.json"
            jsonschema.validate(
                yaml.safe_load(files[name]), json.loads(path.read_text())
            )


@pytest.mark.parametrize(("limit", "words"), [(1, "1 minute or"), (2, "2 minutes or")])
def test_a_job_of_slurm_tells_its_limit_in_words(rendered, limit, words):
    typed = [f"launch.limit_minutes={limit}", "launch.grace_seconds=30"]
    assert words in rendered("slurm", *typed)["job.sbatch"]


@pytest.mark.parametrize("typed", VARIANTS["slurm"])
def test_sbatch_knows_every_option_of_a_job(rendered, typed):
    text = rendered("slurm", *typed)["job.sbatch"]
    options = re.findall(r"^#SBATCH --([a-z-]+)(?:=\S+)?$", text, re.MULTILINE)
    assert text.count("#SBATCH") == len(options)
    assert set(options) <= set(SBATCH)
    first = next(i for i, line in enumerate(text.splitlines()) if line[:1] != "#")
    assert "#SBATCH" not in "\n".join(text.splitlines()[first:])


def words_of(target, files):
    """Return the command in the files of a launch, as its reader reads it."""
    if target == "gke":
        job = yaml.safe_load(files["jobset.yaml"])["spec"]["replicatedJobs"][0]
        pod = job["template"]["spec"]["template"]["spec"]
        return [w.replace("$$(", "$(") for w in pod["containers"][0]["command"]]
    name = {"slurm": "job.sbatch", "skypilot": "run"}.get(target, "worker.sh")
    text = shells(files)[name]
    array = re.search(r"^command=\(\n.*?^\)$", text, re.MULTILINE | re.DOTALL)[0]
    done = subprocess.run(
        ["bash", "-c", f"{array}\nprintf '%s\\0' \"${{command[@]}}\""],
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("target", NEEDS)
def test_the_processes_get_the_very_words_that_were_typed(rendered, target, tmp_path):
    words = [*HOSTILE, *fuzzed(1000)]
    command = words_of(target, rendered(target, words=words))
    begin = command.index("trainer")
    assert command[begin - 1 :] == ["-m", "trainer", *words]
    if target in ("tpu_vm", "tpu_queued", "skypilot"):
        assert command[: begin - 2][1:5] == [
            *("-m", "launch.local", "--max-restarts"),
            str(compose([f"launch={target}", *NEEDS[target]]).launch.max_restarts),
        ]


@pytest.mark.parametrize("target", NEEDS)
def test_values_of_secrets_are_in_no_file(rendered, target, monkeypatch):
    for name in ("WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "canary-4711")
    files = rendered(target, "launch.secrets=[WANDB_API_KEY,HF_TOKEN]")
    text = "".join(files.values())
    assert "canary-4711" not in text
    assert "WANDB_API_KEY" in text
    assert "HF_TOKEN" in text


def test_kubernetes_expands_no_variable_in_a_word(rendered):
    text = rendered("gke", words=["generate.prompt=$(WANDB_API_KEY)"])["jobset.yaml"]
    assert '"generate.prompt=$$(WANDB_API_KEY)"' in text


def test_final_codes_are_all_that_are_not_restarted():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ends = {kind.exit_code for kind in kinds if issubclass(kind, errors.RunError)}
    assert set(FINAL_CODES) == (ends | {1, 130}) - {6, 83}
    assert sorted(FINAL_CODES) == list(FINAL_CODES)  # Kubernetes wants them ordered


@pytest.mark.parametrize(
    ("accelerator", "hosts", "expected"),
    [
        ("v5litepod-1", None, (1, 1, "1x1", "tpu-v5-lite-podslice")),
        ("v5litepod-8", None, (8, 2, "2x4", "tpu-v5-lite-podslice")),
        ("v5litepod-8", 1, (8, 1, "2x4", "tpu-v5-lite-podslice")),
        ("v5litepod-256", None, (256, 64, "16x16", "tpu-v5-lite-podslice")),
        ("v6e-16", None, (16, 4, "4x4", "tpu-v6e-slice")),
        ("v5p-8", None, (4, 1, "2x2x1", "tpu-v5p-slice")),
        ("v4-128", None, (64, 16, "4x4x4", "tpu-v4-podslice")),
    ],
)
def test_a_name_says_chips_hosts_and_topology(accelerator, hosts, expected):
    slice_ = tpu_slice(accelerator, hosts=hosts)
    found = (slice_.chips, slice_.hosts, slice_.topology, slice_.gke_accelerator)
    assert found == expected


@pytest.mark.parametrize(
    ("accelerator", "hosts", "key", "fix"),
    [
        ("v5e-8", None, "launch.accelerator", "launch.accelerator=v5litepod-8"),
        ("v5litepod-9", None, "launch.accelerator", "launch.accelerator=v5litepod-"),
        ("v5p-7", None, "launch.accelerator", "launch.accelerator=v5p-"),
        ("H100:8", None, "launch.accelerator", "launch.accelerator=v"),
        ("v5litepod-8", 3, "launch.processes", "launch.processes=2"),
    ],
)
def test_a_slice_that_is_not_built_is_told(accelerator, hosts, key, fix):
    with pytest.raises(ConfigError) as caught:
        tpu_slice(accelerator, hosts=hosts)
    assert caught.value.key == key
    assert caught.value.fix.startswith(fix)


def test_an_installation_without_a_repository_needs_an_image(monkeypatch, tmp_path):
    monkeypatch.setattr("launch.targets.conf_directory", lambda: tmp_path / "conf")
    config = compose(["launch=tpu_vm", *NEEDS["tpu_vm"]])
    with pytest.raises(ConfigError, match="no repository") as caught:
        render_target(config, [])
    assert caught.value.key == "launch.image"


def test_words_of_the_launch_stay_here():
    typed = ["launch=slurm", "launch.processes=4", "+experiment=mine", "seed=1"]
    typed += ["run.name=a", "run.root=typed"]
    config = compose(["run.name=a", "run.root=gs://moved/by a multirun"])
    assert training_words(typed, config) == [
        *("+experiment=mine", "seed=1"),
        *("run.root=gs://moved/by a multirun", "run.name=a"),
    ]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (["launch=slurm", "launch.job=mine"], "mine"),
        (["run.name=My.Run_7"], "my-run-7"),
        (["run.name=7b"], "run-7b"),
        (["run.name=" + "a" * 60], "a" * 40),
    ],
)
def test_a_job_is_called_as_its_run(typed, name):
    assert job_name(compose(typed)) == name


def test_a_long_name_keeps_the_hash_that_makes_it_one():
    config = compose(["preset=code_gemma_1.1_instruct_7b_en"])
    name = job_name(config)
    assert re.fullmatch(r"code-gemma-1-1-instruct-7b-en-w\w*-[0-9a-f]{8}", name)
    assert len(name) == 40


def test_a_configuration_from_elsewhere_is_not_launched(repository, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "trainer", f"--config-dir={tmp_path}", "launch=slurm"],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "the trainer's own conf/" in done.stderr
