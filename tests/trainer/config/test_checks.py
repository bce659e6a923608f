"""Every message of the checks, by the words that cause it."""

import dataclasses

import pytest

from trainer.__main__ import compose
from trainer.config.checks import ConfigError, ConfigErrors, check, find_problems
from trainer.config.keys import all_keys
from trainer.config.limits import CHOICES, PROJECTIONS
from trainer.config.schema import RunConfig

BATCHES = ("global_batch_size", "microbatch_size")
CASES = [
    # what was typed, key, part of `expected`, fix
    ("preset=gemma2_9_en", "preset", "gemma2_9b_en", "preset=gemma2_9b_en"),
    ("preset=org/model", "preset", "handle", "preset.name=org/model"),
    ("preset.name=gema2_tiny_en", "preset.name", "./name", "preset=gemma2_tiny_en"),
    ("preset.dtype=bf16", "preset.dtype", "float32", "preset.dtype=bfloat16"),
    ("preset.quantize=int3", "preset.quantize", "none, int8", "preset.quantize=int8"),
    ("mesh=1by8", "mesh.shape", "batch x model", "mesh=1x8"),
    ("mesh=8", "mesh.shape", "batch x model", "mesh=1x8 or mesh=8x1"),
    ("mesh=[2,4]", "mesh.shape", "batch x model", "mesh=2x4"),
    ("mesh.shape=[2,4]", "mesh.shape", "batch x model", "mesh=2x4"),
    ("mesh=0x8", "mesh.shape", "batch x model", "mesh=auto"),
    ("mesh=atuo", "mesh.shape", "auto", "mesh=auto"),
    ("mesh=32x1", "trainer.global_batch_size", "(32)", "trainer.global_batch_size=32"),
    ("data=wordnt", "data", "jsonl, tfds, wordnet", "data=wordnet"),
    ("data=my/rows.jsonl", "data", "jsonl", "data=jsonl data.path=my/rows.jsonl"),
    ("data=jsonl", "data.path", "JSONL", "data.path=data/train.jsonl"),
    ("data.path=a.jsonl", "data.path", "null", "data=jsonl data.path=a.jsonl"),
    ("data.on_bad_row=drop", "data.on_bad_row", "raise, skip", "data.on_bad_row=raise"),
    ("data.sequence_length=0", "data.sequence_length", "8 or more", "=128"),
    ("lora=rank12", "lora", "rank8", "lora.rank=12"),
    ("lora.rnk=4", "lora.rnk", "lora.rank", "lora.rank=4"),
    ("+lora.rnk=4", "lora.rnk", "lora.rank", "lora.rank=4"),
    ("lora.rank=-1", "lora.rank", "0 or more", "lora.rank=8"),
    ("lora.rank=four", "lora.rank", "a whole number", "lora.rank=8"),
    ("lora.alpha=0", "lora.alpha", "more than 0", "lora.alpha=null"),
    ("lora.dropout=1", "lora.dropout", "below 1", "lora.dropout=0.0"),
    ("lora.targets=query", "lora.targets", "a list", "lora.targets=[query,value]"),
    ("lora.targets=[]", "lora.targets", "at least one", "[query,value]"),
    ("lora.targets=[qery,ffw_*]", "lora.targets", "ffw_linear", "=[query,ffw_*]"),
    ("optimizer=adam", "optimizer", "adafactor, adamw", "optimizer=adamw"),
    ("optimizer.name=mun", "optimizer.name", "lion, muon, sgd", "optimizer.name=muon"),
    ("optimizer.ema_decay=1", "optimizer.ema_decay", "below 1", "ema_decay=null"),
    ("learning_rate=1", "learning_rate", "optimizer", "optimizer.learning_rate=1"),
    ("lr=1", "lr", "optimizer", "optimizer.learning_rate=1"),
    ("optimizer.learning_rate=0", "optimizer.learning_rate", "more than 0", "0.003"),
    ("optimizer.learning_rate=fast", "optimizer.learning_rate", "a number", "0.003"),
    ("schedule.warmup_steps=999", "schedule.warmup_steps", "at most", "=25"),
    ("schedule=wds", "schedule", "linear, wsd", "schedule=wsd"),
    ("schedule.decay_fraction=2", "schedule.decay_fraction", "from 0 to 1", "=0.2"),
    ("schedule.final_fraction=2", "schedule.final_fraction", "from 0 to 1", "=0.0"),
    ("trainer.num_train_steps=1.5", "trainer.num_train_steps", "whole", "=250"),
    ("trainer.num_train_steps=0", "trainer.num_train_steps", "1 or more", "=250"),
    ("trainer.microbatch_size=3", "trainer.microbatch_size", "a divisor", "=1"),
    (
        "trainer.profile=ten",
        "trainer.profile",
        "FIRST-LAST, steps such as",
        "trainer.profile=10-15",
    ),
    ("trainer.profile=15-10", "trainer.profile", "FIRST-LAST", "profile=10-15"),
    ("trainer.profile=0-3", "trainer.profile", "FIRST-LAST", "profile=1-3"),
    ("trainer.profile=249-400", "trainer.profile", "FIRST-LAST", "profile=249-250"),
    ("trainer.profile=900", "trainer.profile", "FIRST-LAST", "profile=250-250"),
    ("trainer.profile=1-200", "trainer.profile", "at most 100", "profile=1-100"),
    (
        *("trainer.compilation_cache=gs://b/c", "trainer.compilation_cache"),
        *("of this machine", "trainer.compilation_cache=auto"),
    ),
    ("checkpoint.keep_lst=1", "checkpoint.keep_lst", "keep_last", "keep_last=1"),
    ("tracker=wandbb", "tracker", "jsonl, wandb", "tracker=wandb"),
    ("generate.top_k=0", "generate.top_k", "1 or more", "generate.top_k=null"),
    ("generate.top_p=0", "generate.top_p", "at most 1", "generate.top_p=1.0"),
    ("trainer.z_loss=-1", "trainer.z_loss", "0 or more", "trainer.z_loss=0"),
    ("trainer.label_smoothing=1", "trainer.label_smoothing", "below 1", "=0.0"),
    ("generate.min_p=1", "generate.min_p", "below 1", "generate.min_p=0.0"),
    ("tracker.upload=[lra]", "tracker.upload", "lora, preset", "[lora]"),
    ("artifacts.from=bst", "artifacts.source", "last, best", "best"),
    ("launch=slrm", "launch", "skypilot, slurm", "launch=slurm"),
    ("task=trian", "task", "train", "task=train"),
    ("resume=always", "resume", "auto, never, must", "resume=auto"),
    ("seed=x", "seed", "a whole number", "seed=0"),
    ("debug=maybe", "debug", "true or false", "debug=false"),
    ("run.name=a/b", "run.name", "a folder's name", "run.name=a-b"),
    ("device.simulated=9999", "device.simulated", "at most 512", "=0"),
    ("trainer=big", "trainer", "default", "trainer=default"),
    ("generate=hello", "generate", "generate.prompt", "generate.prompt=hello"),
    ("bogus=1", "bogus", "a key that exists", "--help"),
    ("~lora", "lora", "taken away", "lora=none"),
    ("~lora.alpha", "lora.alpha", "taken away", "lora.alpha=null"),
    ("~seed", "seed", "taken away", "leave ~seed out"),
    ("lora", "lora", "key=value", "lora=VALUE"),
    ("lora.rank=4,8", "lora.rank", "one value", "--multirun"),
    ("tracker.project=a)b", "tracker.project", "quotes", 'tracker.project="a)b"'),
]


def test_a_profile_beyond_the_last_step_names_the_key_that_sets_it():
    with pytest.raises(ConfigError) as caught:
        compose(["trainer.profile=9-12", "trainer.num_train_steps=2"])
    assert "from 1 to trainer.num_train_steps=2" in caught.value.expected
    assert caught.value.fix == "trainer.profile=2-2"


@pytest.mark.parametrize(
    ("sizes", "key", "received", "fix"),
    [
        ((6, None), "global_batch_size", 6, 8),
        ((16, 2), "microbatch_size", 2, 4),
        ((12, 6), "microbatch_size", 6, 12),
    ],
)
def test_a_batch_that_the_mesh_does_not_divide_is_told_by_its_own_key(
    sizes, key, received, fix
):
    words = [f"trainer.{k}={n or 'null'}" for k, n in zip(BATCHES, sizes, strict=True)]
    with pytest.raises(ConfigError) as caught:
        compose(["mesh=4x1", *words])
    assert (caught.value.key, caught.value.received) == (f"trainer.{key}", received)
    assert caught.value.fix == f"trainer.{key}={fix}, or another mesh"
    words = [word for word in words if key not in word]
    assert compose(["mesh=4x1", *words, f"trainer.{key}={fix}"]).mesh.shape == "4x1"


@pytest.mark.parametrize(("typed", "key", "expected", "fix"), CASES)
def test_a_wrong_word_is_told_with_what_would_be_right(typed, key, expected, fix):
    with pytest.raises(ConfigError) as caught:
        compose([typed])
    assert caught.value.key == key
    assert expected in caught.value.expected
    assert fix in caught.value.fix
    assert len(caught.value.message().splitlines()) <= 24


@pytest.mark.parametrize(
    ("words", "key", "expected", "fix"),
    [
        (
            ["mesh=2x4", "device.simulated=6"],
            "mesh.shape",
            "the number of devices, 6",
            "mesh=6x1 or mesh=3x2; on a CPU device.simulated=8",
        ),
        (
            ["lora=none", "lora.path=a.lora.h5"],
            "lora.path",
            "lora.rank is 0",
            "lora=rank8 lora.path=a.lora.h5",
        ),
        (
            ["tracker=wandb", "tracker.upload=[preset]", "artifacts.preset=false"],
            "tracker.upload",
            "artifacts.preset=false",
            "tracker.upload=[lora]",
        ),
        (
            ["preset.quantize=int4", "lora=none"],
            "lora.rank",
            "preset.quantize=int4 freezes the base",
            "lora=rank8",
        ),
        (
            ["lora=none", "lora.train_embedding=true"],
            "lora.train_embedding",
            "every weight is trained",
            "or lora=rank8",
        ),
        (
            ["preset.quantize=int4", "lora.train_embedding=true"],
            "lora.train_embedding",
            "frozen by preset.quantize=int4",
            "preset.quantize=none",
        ),
        (
            ["lora.train_embedding=true", "artifacts.preset=false"],
            "artifacts.preset",
            "what no file of adapters can hold",
            "artifacts.preset=true",
        ),
        (
            ["preset.quantize=int8", "preset.load_weights=false"],
            "preset.load_weights",
            "quantizes weights that are read",
            "preset.quantize=none",
        ),
        (
            ["schedule=wsd", "schedule.warmup_steps=220"],
            "schedule.warmup_steps",
            "at most 200, where the decay of schedule=wsd begins",
            "schedule.warmup_steps=20",
        ),
        (["seed=${nothing.here}"], "seed", "composes", "--help"),
    ],
)
def test_a_wrong_combination_is_told(words, key, expected, fix):
    with pytest.raises(ConfigError) as caught:
        compose(words)
    assert caught.value.key == key
    assert expected in caught.value.expected
    assert fix in caught.value.fix


def test_projections_are_those_of_the_model():
    from gemma.lora import PROJECTIONS as OF_THE_MODEL

    assert PROJECTIONS == OF_THE_MODEL


def test_another_backend_of_keras_is_told(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(ConfigError, match="unset KERAS_BACKEND") as caught:
        check(RunConfig())
    assert caught.value.received == "torch"


def test_only_adapters_that_are_made_need_targets():
    check(compose(["lora=none", "lora.targets=[qery]"]))


def test_a_quantized_base_without_adapters_is_evaluated():
    check(compose(["task=evaluate", "lora=none", "preset.quantize=int4"]))


def test_several_problems_are_told_at_once():
    words = ["lora.rnk=4", "preset=gema2_2b_en", "optimizer.learning_rate=-1"]
    with pytest.raises(ConfigErrors) as caught:
        compose([*words, "data=tfds"])
    assert [problem.key for problem in caught.value.problems] == [
        "lora.rnk",
        "preset",
        "optimizer.learning_rate",
        "data.name",
        "data.data_dir",
    ]


def test_a_wrong_value_hides_what_would_only_follow_from_it():
    config = RunConfig()
    config.trainer.microbatch_size = 0
    assert [p.key for p in find_problems(config)] == ["trainer.microbatch_size"]


@pytest.mark.parametrize("name", ["./mine", "hf://google/gemma-2-2b", "/data/preset"])
def test_handles_and_directories_are_left_to_whoever_opens_them(name):
    check(compose([f"preset.name={name}"]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value):
    config = RunConfig()
    config.optimizer.learning_rate = value
    with pytest.raises(ConfigError, match="more than 0"):
        check(config)


def test_every_key_has_its_meaning():
    assert [name for name, facts in all_keys().items() if not facts.meaning] == []
    assert all_keys()["lora.rank"].expected.startswith("a whole number. Inner dim")


def test_choices_are_keys_whose_default_is_among_them():
    keys = set(all_keys())
    assert set(CHOICES) <= keys
    check(RunConfig())
    assert dataclasses.asdict(compose([])) == dataclasses.asdict(RunConfig())
