import pytest

from trainer.__main__ import compose
from trainer.config.overrides import normalise_overrides


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("+preset=gemma2_9b_en", "preset=gemma2_9b_en"),
        ("preset=gemma2_9b_en", "preset=gemma2_9b_en"),
        ("++preset=gemma2_9b_en", "preset=gemma2_9b_en"),
        ("+lora.rank=4", "lora.rank=4"),
        ("+preset.extra=1", "+preset.extra=1"),
        ("mesh=1x8", "mesh.shape=1x8"),
        ("mesh=16x16", "mesh.shape=16x16"),
        ("mesh=1x8,2x4", "mesh.shape=1x8,2x4"),
        ("mesh=auto,1x8", "mesh.shape=auto,1x8"),
        ("mesh=auto", "mesh=auto"),
        ("mesh=1by8", "mesh=1by8"),
        ("experiment=pretrain_tiny", "+experiment=pretrain_tiny"),
        ("+experiment=pretrain_tiny", "+experiment=pretrain_tiny"),
        ("artifacts.from=best", "artifacts.source=best"),
        ("generate.prompt=hello", "generate.prompt='hello'"),
        ("generate.prompt='hello'", "generate.prompt='hello'"),
        ("generate.prompt=null", "generate.prompt=null"),
        ("data.split=train[:10%]", "data.split='train[:10%]'"),
        ("data.path=a.jsonl,b.jsonl", "data.path=a.jsonl,b.jsonl"),
        ("--multirun", "--multirun"),
        ("~lora", "~lora"),
    ],
)
def test_a_word_is_rewritten_to_what_hydra_takes(typed, normal):
    assert normalise_overrides([typed]) == [normal]


@pytest.mark.parametrize(
    "prompt",
    [
        "What's a dog, really (in short)?",
        'say "cat" {now} [please]',
        "a = b; c: d # e",
        "ends with a backslash \\",
        "a\\'b",
        "Was heißt 犬?",
        "two\nlines",
        "1.50",
        "true",
        "'tis",
    ],
)
def test_any_prompt_arrives_as_it_was_typed(prompt):
    assert compose([f"generate.prompt={prompt}"]).generate.prompt == prompt


def test_a_slice_and_a_path_with_odd_characters_arrive():
    words = ["data=tfds", "data.name=x", "data.data_dir=d", "data.split=train[:10%]"]
    assert compose(words).data.split == "train[:10%]"
    path = "a=b/(1)/*.jsonl"
    assert compose(["data=jsonl", f"data.path={path}"]).data.path == path
