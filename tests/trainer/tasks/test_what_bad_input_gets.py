"""Bad rows, presets and directories: message and exit code, and nothing written."""

import json
import os
import shutil

import pytest

from trainer.config.ending import exit_code_of
from trainer.config.errors import DataError

ROW = {"prompt": "Define the noun sea.", "response": "Much salt water."}


@pytest.fixture
def ends(runs, capsys):
    """Return a function that runs and returns exit code and what was shown."""

    def run(*words):
        code = exit_code_of(lambda: runs.here(*words), debug=False)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, " ".join((shown.out + shown.err).split())

    return run


def write_rows(path, rows):
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def test_a_bad_row_is_named_by_file_and_line_without_its_content(ends, tmp_path):
    rows = [json.dumps(ROW), '{"prompt": "a secret", "response": 3}']
    path = write_rows(tmp_path / "rows.jsonl", rows)
    code, shown = ends("data=jsonl", f"data.path={path}", "run.name=x")
    assert code == 3
    assert "rows.jsonl:2" in shown
    assert "a secret" not in shown
    assert not (tmp_path / "x").exists()


def test_a_bad_row_can_be_skipped(ends, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [json.dumps(ROW)] * 40 + ["no json"])
    words = ("data=jsonl", f"data.path={path}", "data.on_bad_row=skip")
    code, shown = ends(*words, "run.name=x", "trainer.num_train_steps=1")
    assert code == 0, shown


def test_a_missing_file_is_a_data_error(ends, tmp_path):
    code, shown = ends("data=jsonl", f"data.path={tmp_path}/none.jsonl")
    assert code == 3
    assert "none.jsonl" in shown


@pytest.mark.parametrize(
    ("word", "told", "fix"),
    [
        (
            "trainer.attention=splash",
            "splash, which needs a TPU",
            "trainer.attention=blocked, or auto",
        ),
        (
            "data.sequence_length=8193",
            "expected at most 8,192",
            "fix data.sequence_length=8192",
        ),
        ("lora.rank=17", "expected at most 16", "fix lora.rank=16, or lora=none"),
        (
            "trainer.remat=offload",
            "a choice for cpu devices",
            "fix trainer.remat=block",
        ),
    ],
)
def test_what_device_or_model_cannot_do_is_refused(ends, tmp_path, word, told, fix):
    code, shown = ends(word, "run.name=x")
    assert code == 2
    assert told in shown
    assert fix in shown
    assert not (tmp_path / "x").exists()


def test_a_directory_that_is_no_preset_is_named(ends, tmp_path):
    code, shown = ends(f"preset.name={tmp_path}")
    assert code == 4
    assert str(tmp_path) in shown.replace(" ", "") or "config.json" in shown


def test_a_damaged_preset_is_found_before_training(ends, repository, tmp_path):
    preset = tmp_path / "preset"
    shutil.copytree(repository / "tests/golden/keras_hub/gemma2", preset)
    weights = preset / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:100_000])
    code, shown = ends(f"preset.name={preset}", "run.name=x")
    assert code == 4
    assert "model.weights.h5" in shown
    assert not (tmp_path / "x").exists(), "a mended preset would be another run"


def test_a_preset_without_tokenizer_cannot_train(ends, repository, tmp_path):
    preset = tmp_path / "preset"
    shutil.copytree(repository / "tests/golden/keras_hub/gemma2", preset)
    shutil.rmtree(preset / "assets")
    code, shown = ends(f"preset.name={preset}")
    assert code == 4
    assert "tokenizer" in shown


def test_a_wrong_mesh_names_those_that_fit(ends):
    code, shown = ends("mesh=3x1", "trainer.global_batch_size=3")
    assert code == 2
    assert "mesh=8x1 or mesh=4x2" in shown
    assert "device.simulated=3" in shown


def test_a_key_that_the_server_refuses_leaves_nothing_behind(
    ends, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", "short")
    code, shown = ends("tracker=wandb", "tracker.mode=online", "run.name=x")
    assert code == 2
    assert "takes the key" in shown
    assert not (tmp_path / "x").exists()
    assert "WANDB_DATA_DIR" not in os.environ


def test_a_refused_run_takes_nothing_with_it_that_was_there(ends, tmp_path):
    (tmp_path / "x").mkdir()
    mine = tmp_path / "x" / "mine.txt"
    mine.write_text("kept")
    code, _ = ends("data.sequence_length=8", "data.eval_rows=1", "run.name=x")
    assert code == 3
    assert mine.read_text() == "kept"
    assert not (tmp_path / "x" / "LOCK").exists()


def test_rows_that_changed_stop_a_run_that_goes_on(runs, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [json.dumps(ROW)] * 40)
    words = ("data=jsonl", f"data.path={path}", "run.name=x")
    assert runs.here(*words, "trainer.num_train_steps=1") == 0
    write_rows(path, [json.dumps(ROW | {"response": "Other."})] * 40)
    with pytest.raises(DataError, match="the train rows that"):
        runs.here(*words, "trainer.num_train_steps=2")


def test_evaluation_without_held_out_rows_says_how_to_get_some(ends, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [json.dumps(ROW)] * 40)
    words = ("data=jsonl", f"data.path={path}", "task=evaluate", "lora=none")
    code, shown = ends(*words)
    assert code == 2
    assert "data.eval_path" in shown
    code, shown = ends(*[w.replace("evaluate", "generate") for w in words])
    assert code == 2
    assert "generate.prompt" in shown
