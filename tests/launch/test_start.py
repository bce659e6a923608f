"""What a launch shows and writes, and what it asks of this machine before."""

import pytest

from trainer.config.errors import ConfigError


@pytest.mark.parametrize(
    ("target", "tool"),
    [
        ("tpu_vm", "gcloud"),
        ("gke", "kubectl"),
        ("slurm", "sbatch"),
        ("skypilot", "sky"),
    ],
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


def test_processes_of_this_machine_are_shown_when_they_are_not_started(launched, capfd):
    typed = ["launch.processes=4", "launch.submit=false", "generate.prompt='a b'"]
    assert launched("local", *typed) == 0
    shown = capfd.readouterr().out
    assert """-m trainer 'generate.prompt='"'"'a b'"'"''  # as 4 processes""" in shown
