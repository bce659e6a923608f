"""27B's query scale, and bfloat16 held to the reference's own error."""

import json

import numpy as np
import pytest

from gemma import Backbone

SAME = 1e-4  # float32 on two frameworks


@pytest.fixture(scope="module")
def made(repository):
    """Directory of what transformers computed for this repository."""
    return repository / "tests/golden/transformers"


def logits_of(directory, token_ids, padding_mask, **settings):
    backbone = Backbone.from_preset(str(directory), **settings)
    inputs = {
        "token_ids": token_ids.astype("int32"),
        "padding_mask": padding_mask.astype("int32"),
    }
    return np.asarray(backbone.token_embedding(backbone(inputs), reverse=True))


@pytest.mark.parametrize("name", ["gemma2_27b", "gemma3_27b"])
def test_models_of_27bs_proportions_equal_transformers(made, name):
    golden = np.load(made / name / "golden.npz")
    ids, mask = golden["input_ids"], np.ones_like(golden["input_ids"])
    logits = logits_of(made / name, ids, mask)
    np.testing.assert_allclose(logits, golden["logits"], atol=SAME, rtol=SAME)
    # what KerasHub computes: the same weights, scaled by head_dim
    wrong = logits_of(made / name, ids, mask, query_head_dim_normalize=True)
    assert np.abs(wrong - golden["logits"]).max() > 100 * SAME


def test_bfloat16_is_as_exact_as_the_reference_in_bfloat16(made, family, repository):
    facts = json.loads((made / "facts.json").read_text())
    directory = repository / "tests/golden/hf" / family
    golden = np.load(directory / "golden.npz")
    ids, mask = golden["input_ids"], golden["attention_mask"]
    logits = logits_of(directory, ids, mask, dtype="bfloat16")
    error = np.abs(logits.astype("float32") - golden["logits"])[mask.astype(bool)]
    allowed = facts["bfloat16_error_of_logits"][family]
    assert 0 < error.max() <= allowed["max"]
    assert 0 < error.mean() <= allowed["mean"]
