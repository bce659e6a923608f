import re

import pytest

from trainer.__main__ import compose
from trainer.config.checks import ConfigError
from trainer.config.identity import (
    check_resume,
    deciding_keys,
    difference,
    run_name,
    sweep_name,
)


def test_a_name_says_preset_and_data_and_hashes_the_rest():
    assert re.fullmatch(r"gemma2_tiny_en-wordnet-[0-9a-f]{8}", run_name(compose([])))
    words = [
        "preset.name=hf://google/gemma-2-2b",
        "data=jsonl",
        "data.path=a/my rows.jsonl",
    ]
    assert re.fullmatch(r"gemma_2_2b-my_rows-[0-9a-f]{8}", run_name(compose(words)))
    words = ["data=tfds", "data.name=gsm8k/main:1.0.0", "data.data_dir=x"]
    assert run_name(compose(words)).startswith("gemma2_tiny_en-gsm8k-")


def test_the_same_words_in_any_spelling_name_the_same_run():
    first = compose(["+preset=gemma2_2b_en", "mesh=1x8", "lora.rank=4"])
    again = compose(["lora.rank=4", "mesh.shape=1x8", "preset=gemma2_2b_en"])
    assert run_name(first) == run_name(again)


@pytest.mark.parametrize(
    "word",
    [
        "mesh=1x8",
        "seed=1",
        "lora.rank=4",
        "trainer.num_train_steps=9",
        "data.pack=false",
        "optimizer.learning_rate=2",
        "device.simulated=8",
        "preset.dtype=bfloat16",
    ],
)
def test_what_decides_the_numbers_names_another_run(word):
    assert run_name(compose([word])) != run_name(compose([]))


@pytest.mark.parametrize(
    "word",
    [
        "task=evaluate",
        "run.root=elsewhere",
        "tracker=wandb",
        "debug=true",
        "checkpoint.every_steps=7",
        "trainer.log_every_steps=5",
        "resume=must",
        "generate.max_new_tokens=3",
        "artifacts.from=best",
    ],
)
def test_what_is_shown_or_kept_names_the_same_run(word):
    assert run_name(compose([word])) == run_name(compose([]))


def test_an_explicit_name_stays():
    assert run_name(compose(["run.name=mine"])) == "mine"


def test_a_sweep_has_one_name_for_one_command():
    words = ["lora.rank=4,8", "optimizer.learning_rate=1e-4,1e-3"]
    keys = ["lora.rank", "optimizer.learning_rate"]
    name = sweep_name(keys, words)
    assert re.fullmatch(r"sweep-rank-learning_rate-[0-9a-f]{8}", name)
    assert sweep_name(keys, [*reversed(words), "tracker.mode=offline"]) == name
    assert sweep_name(keys, [*words, "seed=1"]) != name


CHANGEABLE = [
    "mesh=1x8",
    "device.simulated=8",
    "trainer.num_train_steps=9",
    "optimizer.learning_rate=2",
    "schedule=cosine",
    "schedule.warmup_steps=3",
    "trainer.eval_every_steps=3",
    "trainer.log_every_steps=4",
    "checkpoint.keep_last=9",
    "tracker=wandb",
    "data.eval_rows=8",
    "run.root=x",
    "artifacts.preset=false",
    "resume=must",
    "debug=true",
    "task=evaluate",
    "generate.max_new_tokens=2",
]
FIXED = [
    "preset=gemma2_2b_en", "preset.dtype=bfloat16", "lora.rank=4", "lora.alpha=2",
    "lora.targets=[key]", "lora.dropout=0.1", "data.sequence_length=64",
    "data.pack=false", "data.shuffle=false", "data.on_long_row=skip", "seed=1",
    "optimizer=sgd", "optimizer.weight_decay=0.1", "trainer.global_batch_size=8",
    "trainer.microbatch_size=4",
]  # fmt: skip


@pytest.mark.parametrize("word", CHANGEABLE)
def test_a_run_may_go_on_with_this_changed(word):
    found = difference(compose([]), compose([word]))
    assert found.refused == {}
    assert found.allowed


@pytest.mark.parametrize("word", FIXED)
def test_a_run_may_not_go_on_with_this_changed(word):
    assert difference(compose([]), compose([word])).refused


def test_a_refusal_names_both_values_and_the_directory():
    with pytest.raises(ConfigError) as caught:
        check_resume(compose([]), compose(["lora.rank=4"]), directory="outputs/a")
    assert caught.value.key == "lora.rank"
    assert caught.value.expected == "8, with which outputs/a was made"
    assert caught.value.received == "4"
    assert caught.value.fix == "lora.rank=8, or another run.name"


def test_allowed_changes_come_back_with_both_values():
    found = check_resume(compose([]), compose(["mesh=2x4"]), directory="d")
    assert found.allowed == {"mesh.shape": ("auto", "2x4")}


def test_nothing_about_showing_decides():
    assert not {"run.name", "task", "tracker.name"} & set(deciding_keys(compose([])))
