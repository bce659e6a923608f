"""What a whole run leaves behind, and what a second command does with it."""

import json
import re
import socket

import numpy as np
import pytest

from gemma.adapters import read_lora
from gemma.presets import open_preset
from trainer.__main__ import compose
from trainer.config.errors import ConfigError, DirectoryInUseError
from trainer.run import run
from trainer.tasks.run_directory import RunDirectory
from trainer.tracking import read_events, read_metrics

SAME_LOSS = 1e-5  # float32 sums of a merged and an unmerged kernel


def test_the_directory_holds_what_was_promised(finished):
    directory = finished.root / "whole"
    names = {str(p.relative_to(directory)) for p in directory.rglob("*")}
    assert {
        "config.yaml",
        "metrics.jsonl",
        "events.jsonl",
        "checkpoints/6",
        "artifacts/lora/adapter.lora.h5",
        "artifacts/lora/adapter.json",
        "artifacts/preset/model.weights.h5",
        "report.html",
        "README.md",
    } <= names
    assert "LOCK" not in names


def test_metrics_have_every_step_and_evaluation(finished):
    metrics = read_metrics(finished.root / "whole")
    assert [m["step"] for m in metrics if "train/loss" in m] == [1, 2, 3, 4, 5, 6]
    assert [m["step"] for m in metrics if "eval/loss" in m] == [0, 3, 6]
    first = next(m for m in metrics if m["step"] == 1)
    assert {
        "train/rows_per_second",
        "train/rows_seen",
        "train/tokens_per_second",
        "train/learning_rate",
        "train/grad_norm",
    } <= first.keys()


def test_samples_are_kept_before_and_after(finished):
    samples = read_events(finished.root / "whole", "samples")
    assert [event["step"] for event in samples] == [0, 6]
    assert all(sample["after"] is not None for sample in samples[1]["samples"])


def test_the_same_command_says_that_the_run_is_finished(finished, capsys):
    before = (finished.root / "whole" / "metrics.jsonl").read_bytes()
    assert finished.here("run.name=whole") == 0
    assert "is finished" in capsys.readouterr().out
    assert (finished.root / "whole" / "metrics.jsonl").read_bytes() == before


def test_another_configuration_never_overwrites_a_run(finished):
    with pytest.raises(ConfigError, match="lora.rank") as error:
        finished.here("run.name=whole", "lora.rank=4")
    assert "another run.name" in error.value.fix


def test_resume_never_refuses_a_directory_with_a_run(finished):
    with pytest.raises(ConfigError, match="resume=never"):
        finished.here("run.name=whole", "resume=never")


def test_resume_must_refuses_a_directory_without_one(runs):
    with pytest.raises(ConfigError, match="no such run"):
        runs.here("run.name=nothing", "resume=must")


def test_a_live_owner_keeps_the_directory(runs):
    directory = RunDirectory(compose(runs.overrides("run.name=held")))
    with directory.locked(), pytest.raises(DirectoryInUseError, match="process"):
        runs.here("run.name=held")


def test_a_dead_owners_lock_is_taken_over(runs):
    lock = runs.root / "left" / "LOCK"
    lock.parent.mkdir()
    owner = {"host": socket.gethostname(), "pid": 2**22 + 1, "started": "1"}
    lock.write_text(json.dumps(owner))
    assert runs.here("run.name=left", "trainer.num_train_steps=1") == 0


def test_more_steps_go_on_from_a_finished_run(runs):
    assert runs.here("run.name=grows", "trainer.num_train_steps=2") == 0
    assert runs.here("run.name=grows", "trainer.num_train_steps=4") == 0
    assert list(runs.losses("grows")) == [1, 2, 3, 4]
    changed = read_events(runs.root / "grows", "changed")
    assert "trainer.num_train_steps" in changed[0]["keys"]


def test_base_and_adapter_repeat_the_loss_of_training(finished, capsys):
    adapter = finished.root / "whole" / "artifacts/lora/adapter.lora.h5"
    loss = evaluated(finished, capsys, f"lora.path={adapter}", "run.root=nowhere")
    want = finished.evaluations("whole")[6]
    assert loss == pytest.approx(want, rel=SAME_LOSS)


def test_the_full_preset_repeats_the_loss_of_training(finished, capsys):
    preset = finished.root / "whole" / "artifacts/preset"
    loss = evaluated(finished, capsys, f"preset.name={preset}", "run.root=nowhere")
    assert loss == pytest.approx(finished.evaluations("whole")[6], rel=SAME_LOSS)
    merged = read_events(finished.root / "whole", "merged")[0]
    assert merged["loss"] == pytest.approx(merged["trained"], rel=SAME_LOSS)


def test_a_run_is_evaluated_by_its_name(finished, capsys):
    loss = evaluated(finished, capsys, "run.name=whole")
    assert loss == pytest.approx(finished.evaluations("whole")[6], rel=1e-6)


def test_a_run_is_found_by_the_keys_it_was_trained_with(runs, capsys):
    assert runs.here("trainer.num_train_steps=1") == 0
    capsys.readouterr()
    loss = evaluated(runs, capsys, "trainer.num_train_steps=1")
    name = next(path.name for path in runs.root.iterdir())
    assert loss == pytest.approx(runs.evaluations(name)[1], rel=1e-6)


def test_a_typed_default_counts_over_the_rows_of_a_run(finished, capsys):
    """All rows are the default; the run was made with the first 20."""
    words = finished.overrides("task=evaluate", "run.name=whole")
    words = [word for word in words if not word.startswith("data.eval_rows")]
    rows = []
    for more in ([], ["data.eval_rows=null"]):
        capsys.readouterr()
        assert run(compose([*words, *more]), [*words, *more]) == 0
        out = capsys.readouterr().out
        rows.append(int(re.search(r" rows +([\d,]+)", out)[1].replace(",", "")))
    assert rows[0] == 20 < rows[1]


def test_generation_answers_a_prompt(finished, capsys):
    prompt = "generate.prompt='Define the noun sea.'"
    assert finished.here("task=generate", "run.name=whole", prompt) == 0
    assert capsys.readouterr().out.strip()


def test_held_out_prompts_are_answered_where_training_answered_none(finished, capsys):
    words = ("task=generate", "run.name=whole", "trainer.sample_prompts=0")
    assert finished.here(*words) == 0
    assert len(re.findall(r"^ *answer ", capsys.readouterr().out, re.MULTILINE)) == 3


def test_a_preset_with_an_adapter_answers_as_the_run_did(finished, capsys):
    adapter = finished.root / "whole" / "artifacts/lora/adapter.lora.h5"
    sample = read_events(finished.root / "whole", "samples")[-1]["samples"][0]
    prompt = f"generate.prompt='{sample['prompt']}'"
    words = ("task=generate", "run.root=nowhere", prompt)
    assert finished.here(*words, f"lora.path={adapter}") == 0
    assert capsys.readouterr().out.strip() == sample["after"].strip()
    assert finished.here(*words) == 0
    assert capsys.readouterr().out.strip() == sample["before"].strip()


def test_generation_without_a_run_names_those_there_are(finished):
    with pytest.raises(ConfigError, match="whole"):
        finished.here("task=generate", "run.name=other", "generate.prompt=x")


def test_the_bfloat16_preset_is_measured(runs, capsys):
    assert runs.here("run.name=low", "artifacts.dtype=bfloat16") == 0
    assert "in bfloat16" in capsys.readouterr().out
    preset = open_preset(str(runs.root / "low/artifacts/preset"))
    assert preset.dtype == "bfloat16"


def test_alpha_reaches_adapter_and_merged_preset(runs, capsys):
    assert runs.here("run.name=alpha", "lora.alpha=3", "lora.rank=2") == 0
    directory = runs.root / "alpha"
    preset = open_preset(str(directory / "artifacts/preset"))
    adapter = read_lora(directory / "artifacts/lora/adapter.lora.h5", preset.config)
    assert (adapter.rank, adapter.alpha) == (2, 3.0)
    loss = evaluated(runs, capsys, f"preset.name={directory / 'artifacts/preset'}")
    assert loss == pytest.approx(runs.evaluations("alpha")[6], rel=SAME_LOSS)


def test_full_fine_tuning_moves_every_weight(runs, repository):
    assert runs.here("run.name=full", "lora=none") == 0
    base = open_preset(str(repository / "tests/golden/keras_hub/gemma2"))
    tuned = open_preset(str(runs.root / "full/artifacts/preset"))
    with base.weights() as before, tuned.weights() as after:
        for path in before.paths():
            assert not np.array_equal(before.read(path), after.read(path)), path


def test_training_from_nothing_repeats_for_a_seed(runs):
    for name in ("a", "b"):
        words = ("preset.load_weights=false", "trainer.num_train_steps=2")
        assert runs.here(f"run.name={name}", *words) == 0
    assert runs.losses("a") == runs.losses("b")


def evaluated(runs, capsys, *words):
    """Return the held-out loss that task=evaluate prints."""
    capsys.readouterr()
    assert runs.here("task=evaluate", *words) == 0
    shown = capsys.readouterr().out
    return float(shown.split("held-out loss")[1].split()[0])
