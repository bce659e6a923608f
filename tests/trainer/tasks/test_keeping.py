"""A checkpoint stands by itself: what it was made with is in it, and is compared."""

import copy
import hashlib
import json
import shutil

import pytest

from trainer.config.errors import ConfigError, DataError, PresetError, StorageError
from trainer.tasks.keeping import check_belongs


@pytest.fixture(scope="module")
def kept(finished):
    return json.loads((finished.root / "whole/checkpoints/6/record.json").read_text())


def test_a_checkpoint_carries_all_that_a_run_is(kept, finished):
    metadata = kept["metadata"]
    assert metadata["progress"]["step"] == 6
    assert metadata["progress"]["position"] == {"epoch": 0, "index": 96}
    assert {"rows_seen", "tokens_seen"} <= metadata["progress"].keys()
    made_with = metadata["made_with"]
    assert (made_with["seed"], made_with["lora.rank"]) == (0, 8)
    assert made_with["run.name"] == "whole"
    assert {"package jax", "code of trainer and gemma, sha256"} <= made_with.keys()
    assert metadata["hashes"].keys() == {
        *("train rows", "evaluation rows", "vocabulary", "base")
    }
    vocabulary = finished.repository / "tests/golden/keras_hub/gemma2"
    proto = (vocabulary / "assets/tokenizer/vocabulary.spm").read_bytes()
    assert metadata["hashes"]["vocabulary"] == hashlib.sha256(proto).hexdigest()
    arrays = kept["arrays"]
    assert {"trainable", "slots"} == {name.split("/")[0] for name in arrays}
    assert all(arrays[name]["digest"] >= 0 for name in arrays)


def belongs(kept, config, change=lambda metadata: None):
    metadata = copy.deepcopy(kept["metadata"])
    facts = {"hashes": dict(metadata["hashes"])}
    change(metadata)
    check_belongs(metadata, facts, config, to="checkpoints/6")


def test_the_same_run_goes_on_with_what_may_change(kept, finished):
    belongs(kept, finished.config("run.name=whole"))
    belongs(
        kept, finished.config("run.name=other", "mesh=8x1", "checkpoint.keep_last=9")
    )
    belongs(kept, finished.config("schedule=cosine", "optimizer.learning_rate=0.5"))


@pytest.mark.parametrize(
    ("hash_of", "kind", "key"),
    [
        ("train rows", DataError, "data"),
        ("vocabulary", PresetError, "preset.name"),
        ("base", PresetError, "preset.name"),
    ],
)
def test_other_rows_vocabulary_and_base_are_refused(kept, finished, hash_of, kind, key):
    def change(metadata):
        metadata["hashes"][hash_of] = "another"

    with pytest.raises(kind, match=f"the {hash_of} that checkpoints/6") as caught:
        belongs(kept, finished.config("run.name=whole"), change)
    assert caught.value.key == key
    assert "another run.name" in caught.value.fix


def test_a_checkpoint_of_another_configuration_is_refused(kept, finished):
    with pytest.raises(ConfigError) as caught:
        belongs(kept, finished.config("run.name=whole", "lora.alpha=4", "seed=1"))
    assert [problem.key for problem in caught.value.problems] == ["lora.alpha", "seed"]
    assert "with which checkpoints/6 was made" in str(caught.value)


def test_a_run_whose_checkpoints_cannot_fit_ends_before_step_1(runs, monkeypatch):
    usage = shutil.disk_usage(runs.root)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="100,000 bytes free"):
        runs.here("run.name=full")
    assert runs.losses("full") == {}
