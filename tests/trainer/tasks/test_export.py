"""task=export: every form computes what training ended with, and harms nothing."""

import json
import shutil

import pytest

from gemma.adapters import read_peft
from gemma.presets import open_preset
from trainer.__main__ import compose
from trainer.config.errors import ConfigError, DirectoryInUseError
from trainer.tasks.run_directory import RunDirectory

SAME_LOSS = 1e-5  # float32 sums of a merged and an unmerged kernel


def evaluated(runs, capsys, *words):
    """Return the held-out loss that task=evaluate prints."""
    capsys.readouterr()
    assert runs.here("task=evaluate", "run.root=nowhere", *words) == 0
    shown = capsys.readouterr().out
    return float(shown.split("held-out loss")[1].split()[0])


@pytest.fixture
def trained_loss(finished):
    return finished.evaluations("whole")[6]


@pytest.mark.parametrize("form", ["preset", "hf"])
def test_a_run_becomes_a_model_that_repeats_its_loss(
    finished, capsys, tmp_path, trained_loss, form
):
    target = tmp_path / form
    words = ("task=export", "run.name=whole", f"export.format={form}")
    assert finished.here(*words, f"export.path={target}") == 0
    assert str(target) in "".join(capsys.readouterr().out.split())
    assert open_preset(str(target)).form == {"preset": "keras", "hf": "hf"}[form]
    loss = evaluated(finished, capsys, f"preset.name={target}")
    assert loss == pytest.approx(trained_loss, rel=SAME_LOSS)


def test_a_run_becomes_an_adapter_that_repeats_its_loss(finished, capsys, trained_loss):
    words = ("task=export", "run.name=whole", "export.format=peft")
    for _ in range(2):  # what was exported to the run's own place is replaced
        assert finished.here(*words) == 0
    target = finished.root / "whole/artifacts/peft"
    loss = evaluated(finished, capsys, f"lora.path={target}")
    assert loss == pytest.approx(trained_loss, rel=SAME_LOSS)
    (target / "adapter_model.safetensors.json").unlink()  # as a stranger's
    loss = evaluated(finished, capsys, f"lora.path={target}")
    assert loss == pytest.approx(trained_loss, rel=SAME_LOSS)


@pytest.mark.parametrize("form", ["preset", "hf", "peft"])
def test_a_preset_with_an_adapter_is_exported(
    finished, capsys, tmp_path, trained_loss, form
):
    adapter = finished.root / "whole/artifacts/lora/adapter.lora.h5"
    words = ("task=export", f"export.format={form}", f"export.path={tmp_path / form}")
    assert finished.here(*words, f"lora.path={adapter}", "run.root=nowhere") == 0
    key = "lora.path" if form == "peft" else "preset.name"
    loss = evaluated(finished, capsys, f"{key}={tmp_path / form}")
    assert loss == pytest.approx(trained_loss, rel=SAME_LOSS)


def test_the_dtype_of_an_exported_model_can_be_chosen(finished, tmp_path):
    words = ("export.format=hf", "artifacts.dtype=bfloat16", f"export.path={tmp_path}")
    assert finished.here("task=export", "run.name=whole", *words) == 0
    assert open_preset(str(tmp_path)).dtype == "bfloat16"


def test_every_adapter_of_a_run_knows_its_base(finished, repository, tmp_path):
    words = ("task=export", "run.name=whole", "export.format=peft")
    assert finished.here(*words, f"export.path={tmp_path}") == 0
    sidecar = finished.root / "whole/artifacts/lora/adapter.json"
    expected = json.loads(sidecar.read_text())["base_hash"]
    golden = open_preset(str(repository / "tests/golden/keras_hub/gemma2"))
    assert read_peft(tmp_path, golden.config).base_hash == expected


def test_what_lies_somewhere_is_never_overwritten(finished, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="thesis.tex") as error:
        finished.here("task=export", "run.name=whole", f"export.path={tmp_path}")
    assert error.value.key == "export.path"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match="a file of this name"):
        file = tmp_path / "thesis.tex"
        finished.here("task=export", "run.name=whole", f"export.path={file}")
    own = finished.root / "whole/artifacts/hf"
    own.mkdir()
    shutil.copy(tmp_path / "thesis.tex", own)
    with pytest.raises(ConfigError, match="nothing but hf files"):
        finished.here("task=export", "run.name=whole", "export.format=hf")


def test_a_runs_own_place_is_written_by_one_process_at_a_time(finished, tmp_path):
    words = ("task=export", "run.name=whole", "export.format=peft")
    config = compose(finished.overrides("run.name=whole"))
    with RunDirectory(config).locked():
        with pytest.raises(DirectoryInUseError, match="use export.path=whole-peft, or"):
            finished.here(*words)
        assert finished.here(*words, f"export.path={tmp_path}") == 0
    assert finished.here(*words) == 0
    assert not (finished.root / "whole/LOCK").exists()


def test_without_a_run_there_must_be_a_path(runs):
    with pytest.raises(ConfigError, match="there is no run that has one"):
        runs.here("task=export")


def test_a_run_that_is_not_there_is_told_by_its_name(finished):
    with pytest.raises(ConfigError, match="whole") as error:
        finished.here("task=export", "run.name=hole")
    assert error.value.key == "run.name"


def test_peft_is_refused_where_there_is_no_adapter(runs, tmp_path):
    words = ("task=export", "export.format=peft", f"export.path={tmp_path / 'x'}")
    with pytest.raises(ConfigError, match="preset or hf, since there is no adapter"):
        runs.here(*words)
    assert not (tmp_path / "x").exists()
