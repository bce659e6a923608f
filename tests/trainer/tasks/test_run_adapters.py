"""Runs that start from a file of adapters, and need it no more once they saved."""

import json
import shutil

import pytest

from trainer.config.errors import PresetError, StorageError


@pytest.fixture(scope="module")
def begun(runs_below, tmp_path_factory, repository):
    """A run of one step from an adapter of rank 3, whose file is gone."""
    runs = runs_below(tmp_path_factory.mktemp("begun"))
    path = runs.root / "start.lora.h5"
    shutil.copy(repository / "tests/golden/keras_hub/gemma2/adapter.lora.h5", path)
    words = ("run.name=own", f"lora.path={path}")
    assert runs.here(*words, "trainer.num_train_steps=1") == 0
    path.unlink()
    return runs, words


def test_a_run_is_evaluated_exported_and_continued_without_its_start(begun, capsys):
    runs, words = begun
    capsys.readouterr()
    assert runs.here("task=evaluate", "run.name=own") == 0
    loss = float(capsys.readouterr().out.split("held-out loss")[1].split()[0])
    assert loss == pytest.approx(runs.evaluations("own")[1], rel=1e-6)
    assert runs.here("task=export", "run.name=own", "export.format=peft") == 0
    exported = runs.root / "own/artifacts/peft/adapter_model.safetensors.json"
    assert json.loads(exported.read_text())["rank"] == 3
    assert runs.here(*words, "trainer.num_train_steps=2") == 0
    assert "going on from step 1" in capsys.readouterr().out


def test_damaged_settings_are_named(begun):
    runs, _ = begun
    path = runs.root / "own/adapters.json"
    text = path.read_text()
    path.write_text(text.replace('"rank": 3', '"rank": 0'))
    with pytest.raises(StorageError, match="rank must be at least 1, received 0"):
        runs.here("task=evaluate", "run.name=own")
    path.write_text(text)


def test_a_run_that_saved_nothing_reads_its_start_again(runs, begun):
    _, words = begun
    (runs.root / "own").mkdir()
    settings = begun[0].root / "own/adapters.json"
    shutil.copy(settings, runs.root / "own")
    with pytest.raises(PresetError, match="start.lora.h5"):
        runs.here(*words, "trainer.num_train_steps=1")
