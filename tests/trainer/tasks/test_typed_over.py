"""Which keys words set, and what they do to a run's configuration."""

import pytest

from trainer.__main__ import compose
from trainer.tasks.typed_over import lay_over, typed_keys

ALL = ("preset", "data", "mesh", "optimizer", "seed")


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("data.eval_rows=null", {"data.eval_rows"}),
        ("data=wordnet", {"data.source"}),
        ("+preset=gemma2_2b_en", {"preset.name"}),
        ("data.columns.prompt=question", {"data.columns.prompt"}),
        ("mesh=auto", {"mesh.shape", "mesh.slices"}),
        ("seed=0", {"seed"}),
        ("trainer.remat=block", set()),
        ("hydra.verbose=true", set()),
    ],
)
def test_a_word_sets_its_key_and_a_file_those_of_its_group(word, keys):
    assert typed_keys([word], ALL) == keys


def test_a_default_is_laid_over_another_value():
    stored = compose(["data.sequence_length=64", "data.columns.prompt=question"])
    keys = ("data.sequence_length", "data.columns.prompt")
    found = lay_over(stored, compose([]), keys)
    assert found.data == compose([]).data
    assert lay_over(stored, compose([]), ()) == stored
