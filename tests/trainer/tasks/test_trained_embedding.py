"""Whole runs that train the embedding beside adapters: where its weights end up."""

import re

import numpy as np
import pytest

from gemma.presets import open_preset
from trainer.config.errors import ConfigError

WORDS = (
    "run.name=words",
    "lora.train_embedding=true",
    "optimizer=sgd",  # moves the embedding as far as its gradient says
    "trainer.sample_prompts=0",
)
EMBEDDING = "token_embedding/embeddings"
SAME_LOSS = 1e-5  # float32 sums of a merged and an unmerged kernel


@pytest.fixture(scope="module")
def trained(runs_below, tmp_path_factory):
    """A run that was stopped by its steps in the middle, and went on."""
    made = runs_below(tmp_path_factory.mktemp("trained"))
    for last in (3, 6):
        words = (*WORDS, f"trainer.num_train_steps={last}", "checkpoint.every_steps=3")
        assert made.here(*words) == 0
    return made


def evaluated(runs, capsys, *words):
    capsys.readouterr()
    assert runs.here("task=evaluate", *words) == 0
    return float(re.search(r"held-out loss +([\d.]+)", capsys.readouterr().out)[1])


def test_the_preset_has_the_trained_embedding_and_merged_adapters(trained, repository):
    base = open_preset(str(repository / "tests/golden/keras_hub/gemma2"))
    tuned = open_preset(str(trained.root / "words/artifacts/preset"))
    with base.weights() as before, tuned.weights() as after:
        moved = {
            path.split("/", 1)[-1]
            for path in before.paths()
            if not np.array_equal(before.read(path), after.read(path))
        }
    kernels = {"attention/query/kernel", "attention/value/kernel"}
    assert moved == {"embeddings", *kernels}


def test_no_file_of_adapters_pretends_to_be_the_run(trained):
    artifacts = trained.root / "words/artifacts"
    assert [path.name for path in artifacts.iterdir()] == ["preset"]
    card = (trained.root / "words/README.md").read_text()
    assert "low-rank adapters and its embedding trained" in card
    assert "adapter.lora.h5" not in card


def test_run_and_preset_repeat_the_loss_of_training(trained, capsys):
    last = trained.evaluations("words")[6]
    assert evaluated(trained, capsys, "run.name=words") == pytest.approx(last, abs=1e-6)
    preset = f"preset.name={trained.root / 'words/artifacts/preset'}"
    merged = evaluated(trained, capsys, preset, "run.root=nowhere")
    assert merged == pytest.approx(last, rel=SAME_LOSS)


def test_pefts_form_is_refused(trained):
    words = ("task=export", "export.format=peft", "run.name=words")
    with pytest.raises(ConfigError, match=r"lora.train_embedding=true") as error:
        trained.here(*words)
    assert "export.format=hf" in error.value.message()


def test_the_run_that_went_on_equals_an_unbroken_one(trained, runs):
    assert runs.here(*WORDS) == 0
    assert runs.losses("words") == trained.losses("words")
