"""Directories of Hugging Face give transformers' numbers, gradients included."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from gemma import Backbone
from gemma.decoding import Decoder
from gemma.layers.token_embedding import unembed
from gemma.presets.hf_weights import hf_name
from gemma.stacked import Stacked
from gemma.stacked.tree import stack_values

SAME = 1e-4  # float32 on two frameworks


@pytest.fixture(scope="module")
def directory(family, repository):
    return repository / "tests/golden/hf" / family


@pytest.fixture(scope="module")
def golden(directory):
    return dict(np.load(directory / "golden.npz"))


@pytest.fixture(scope="module")
def inputs(golden):
    return {
        "token_ids": golden["input_ids"].astype("int32"),
        "padding_mask": golden["attention_mask"].astype("int32"),
    }


@pytest.fixture(scope="module")
def backbone(directory):
    return Backbone.from_preset(str(directory))


@pytest.fixture(scope="module")
def stacked(backbone):
    return Stacked(backbone)


@pytest.fixture(scope="module")
def weights(stacked):
    return stack_values(stacked.tree)


def assert_same_at_tokens(values, expected, golden):
    valid = golden["attention_mask"].astype(bool)
    np.testing.assert_allclose(
        np.asarray(values)[valid], expected[valid], atol=SAME, rtol=SAME
    )


def logits_of(stacked, weights, hidden):
    table = weights["token_embedding/embeddings"]
    return unembed(hidden, table, soft_cap=stacked.config.final_logit_soft_cap)


def loss_of(weights, stacked, inputs):
    """Mean cross-entropy of the next token over tokens that are no padding."""
    ids, mask = inputs["token_ids"], inputs["padding_mask"]
    logits = logits_of(stacked, weights, stacked.hidden(weights, ids))
    nats = jax.nn.logsumexp(logits, -1)[:, :-1]
    nats -= jnp.take_along_axis(logits[:, :-1], ids[:, 1:, None], -1)[..., 0]
    return (nats * mask[:, 1:]).sum() / mask[:, 1:].sum()


@pytest.fixture(scope="module")
def loss_and_gradients(stacked, weights, inputs):
    function = jax.jit(jax.value_and_grad(lambda w: loss_of(w, stacked, inputs)))
    return function(weights)


def test_logits(backbone, inputs, golden):
    logits = backbone.token_embedding(backbone(inputs), reverse=True)
    assert_same_at_tokens(logits, golden["logits"], golden)


def test_hidden_states_of_every_block(backbone, inputs, golden):
    names = [f"decoder_block_{i}" for i in range(backbone.gemma_config.num_layers - 1)]
    names = ["embedding_scale", *names, "final_normalization"]
    layers = [backbone.get_layer(name).output for name in names]
    outputs = keras.Model(backbone.inputs, layers)(inputs)
    assert len(outputs) == len(golden["hidden"])
    for output, expected in zip(outputs, golden["hidden"], strict=True):
        assert_same_at_tokens(output, expected, golden)


def test_loss(loss_and_gradients, golden):
    assert abs(loss_and_gradients[0] - golden["loss"]) < SAME


def test_gradients_of_every_weight(backbone, stacked, loss_and_gradients, golden):
    compared = set()
    for path, variable in stacked.tree.items():
        gradient = loss_and_gradients[1][path]
        rows = gradient if variable.is_stacked else [gradient]
        for member, row in zip(variable.members, rows, strict=True):
            name = "model." + hf_name(member.path, backbone.gemma_config)
            expected = golden[f"grad/{name}"]
            np.testing.assert_allclose(
                as_hugging_face(member.path, np.asarray(row)),
                expected,
                atol=SAME * max(1.0, np.abs(expected).max()),
                err_msg=name,
            )
            compared.add(f"grad/{name}")
    assert compared == {key for key in golden if key.startswith("grad/")}


def as_hugging_face(path, values):
    layer, _, name = path.rpartition("/")
    if name != "kernel":
        return values
    if layer.endswith(("query", "key", "value")):
        return values.transpose(0, 2, 1).reshape(-1, values.shape[1])
    if layer.endswith("attention_output"):
        return values.reshape(-1, values.shape[-1]).T
    return values.T


def test_greedy_continuation(stacked, weights, golden):
    prompt, expected = np.split(golden["gen"][0], [8])
    decoder = Decoder(stacked, stop_token_ids=())
    [answer] = decoder.generate(weights, [prompt], max_new_tokens=len(expected))
    assert answer == expected.tolist()
