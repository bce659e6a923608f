"""The stacked forward equals the Keras model, however it is run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma.stacked import Stacked
from gemma.stacked.tree import stack_values

SAME = 1e-5  # float32 on a CPU, sums in another order
MODELS = [("gemma", 3), ("gemma2", 3), ("gemma2", 4), ("gemma3", 8)]


@pytest.fixture(scope="module", params=MODELS, ids=lambda p: f"{p[0]}-{p[1]}")
def model(request, build):
    """A backbone, its functions and its weights; 3 layers leave a period unfinished."""
    return stack(build(*request.param))


@pytest.fixture(scope="module")
def gemma2(build):
    return stack(build("gemma2", 3))


def stack(backbone):
    stacked = Stacked(backbone)
    return backbone, stacked, stack_values(stacked.tree)


def close(values, expected):
    np.testing.assert_allclose(values, expected, atol=SAME, rtol=SAME)


def test_equals_the_keras_model(model, batch):
    backbone, stacked, weights = model
    hidden = jax.jit(stacked.hidden)(weights, **batch)
    close(hidden, jax.jit(backbone)(batch))


def test_adapters_of_either_form_count(build, batch, randomise):
    for factorisation in ("keras", "shared"):
        backbone = build(num_layers=1, fresh=True)
        before = np.asarray(backbone(batch))
        backbone.enable_lora(
            2,
            ["*"],
            alpha=3.0,
            factorisation=factorisation,
        )
        randomise(backbone)
        hidden = np.asarray(backbone(batch))
        assert np.abs(hidden - before).max() > 0.1
        _, stacked, weights = stack(backbone)
        close(stacked.hidden(weights, **batch), hidden)


def test_packed_rows_equal_rows_on_their_own(model, batch):
    """Windows of 4 and rows of 12, 9 and 5 tokens: both kinds of borders occur."""
    _, stacked, weights = model
    lengths = batch["padding_mask"].sum(-1)
    rows = [ids[:n] for ids, n in zip(batch["token_ids"], lengths, strict=True)]
    packed = jax.jit(stacked.hidden)(
        weights,
        np.concatenate([*rows, [0, 0]])[None].astype("int32"),
        positions=np.concatenate([*map(np.arange, lengths), [0, 1]])[None],
        segment_ids=np.repeat([1, 2, 3, 0], [*lengths, 2])[None],
    )[0]
    alone = jax.jit(stacked.hidden)(weights, batch["token_ids"])
    alone = [hidden[:n] for hidden, n in zip(alone, lengths, strict=True)]
    close(packed[:-2], np.concatenate(alone))


@pytest.fixture(scope="module")
def dropping(arguments):
    """Gemma 1 blocks, all alike, which drop half of what they add."""
    from gemma import GemmaBackbone

    _, stacked, weights = stack(
        GemmaBackbone(**arguments("gemma", num_layers=2, dropout=0.5))
    )
    return jax.jit(stacked.hidden), weights


def test_dropout_repeats_with_its_key_and_differs_with_another(dropping, batch):
    hidden, weights = dropping
    one = hidden(weights, **batch, dropout_key=jax.random.key(0))
    same = hidden(weights, **batch, dropout_key=jax.random.key(0))
    other = hidden(weights, **batch, dropout_key=jax.random.key(1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(np.asarray(one - other)).max() > 0.01


def test_without_a_key_nothing_is_dropped(dropping, batch):
    hidden, weights = dropping
    np.testing.assert_array_equal(hidden(weights, **batch), hidden(weights, **batch))


def test_layers_drop_differently(dropping):
    """Each of two layers adds 1 to hidden states of 1000: 0 or 2 under dropout.

    Equal masks would add 0 or 4 in all, different ones also 2.
    """
    hidden, weights = dropping
    values = {
        "token_embedding/embeddings": 1000 / np.sqrt(32),
        "decoder_blocks/attention/attention_output/kernel": 0.0,
        "decoder_blocks/ffw_gating/kernel": 1 / 32,
        "decoder_blocks/ffw_gating_2/kernel": 1 / 32,
        "decoder_blocks/ffw_linear/kernel": 1 / (48 * 0.8412),  # gelu(1) = 0.8412
    }
    weights = {p: jnp.full(w.shape, values.get(p, 0.0)) for p, w in weights.items()}
    ids = np.ones((1, 4), "int32")
    relative = np.asarray(hidden(weights, ids, dropout_key=jax.random.key(0)))
    added = np.rint((relative - relative.min()) * 1000)
    assert set(added.ravel()) == {0.0, 2.0, 4.0}


def test_a_missing_weight_is_named(gemma2, batch):
    _, stacked, weights = gemma2
    short = {k: w for k, w in weights.items() if k != "final_normalization/scale"}
    with pytest.raises(ValueError, match="received none for final_normalization/scale"):
        stacked.hidden(short, **batch)


def test_a_weight_of_nothing_is_named(gemma2, batch):
    _, stacked, weights = gemma2
    with pytest.raises(ValueError, match="received also head/kernel"):
        stacked.hidden({**weights, "head/kernel": jnp.ones(1)}, **batch)
