"""Attention against a reference in NumPy: grouped heads, scale, window, cap."""

import keras
import numpy as np
import pytest

from gemma.attention import Attention, Target
from gemma.config import GemmaConfig
from gemma.layers.attention import CachedGemmaAttention, attention_here

SAME = 1e-5  # float32 against float64


@pytest.fixture
def attention(arguments):
    def build(kind="global", **changes):
        changes = {"attention_logit_soft_cap": None} | changes
        layer = CachedGemmaAttention(GemmaConfig(**arguments(**changes)), kind)
        layer.build((None, None, 32))
        draw = np.random.default_rng(0).normal
        for variable in layer.weights:
            variable.assign(draw(size=variable.shape) * 0.3)
        return layer

    return build


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(2, 7, 32)).astype("float32")


def rotated(x):
    """Turn pairs (first half, second half) by position / 10000 ** (i / half)."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] / 10_000 ** (np.arange(half) / half)
    turn = np.exp(1j * angle)[None, :, None]
    z = (x[..., :half] + 1j * x[..., half:]) * turn
    return np.concatenate([z.real, z.imag], -1)


def reference(layer, x, *, width, window=None, soft_cap=None):
    """Attend in float64; `width` is what the scores are divided by, squared."""
    kernels = [np.asarray(v.value, "float64") for v in layer.weights]
    query, key, value, output = kernels
    project = lambda w: np.einsum("btd,ndh->btnh", x.astype("float64"), w)  # noqa: E731
    group = query.shape[0] // key.shape[0]
    q, k = rotated(project(query)), np.repeat(rotated(project(key)), group, 2)
    scores = np.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(width)
    if soft_cap:
        scores = soft_cap * np.tanh(scores / soft_cap)
    place = np.arange(x.shape[1])
    distance = place[:, None] - place[None]
    visible = (distance >= 0) & (distance < (window or 99))
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bnts,bsnh->btnh", weights, np.repeat(project(value), group, 2))
    return np.einsum("btnh,nhd->btd", mixed, output)


def attend(layer, x):
    positions = np.arange(x.shape[1], dtype="int32")[None]
    return np.asarray(layer(x, positions=positions)[0])


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {"width": 8}),
        ({"query_head_dim_normalize": False, "num_query_heads": 2}, {"width": 16}),
        ({"attention_logit_soft_cap": 0.5}, {"width": 8, "soft_cap": 0.5}),
        ({"kind": "local", "sliding_window_size": 3}, {"width": 8, "window": 3}),
        ({"num_key_value_heads": 1}, {"width": 8}),
    ],
    ids=["head_dim", "hidden_dim_per_head", "soft_cap", "window", "one_kv_head"],
)
def test_equals_the_reference(attention, x, changes, options):
    layer = attention(**changes)
    expected = reference(layer, x, **options)
    np.testing.assert_allclose(attend(layer, x), expected, atol=SAME, rtol=SAME)


def test_the_scale_of_the_query_shows(attention, x):
    """The two scales differ here, so that confusing them would be seen."""
    layer = attention(query_head_dim_normalize=False, num_query_heads=2)
    wrong = reference(layer, x, width=8)
    assert np.abs(attend(layer, x) - wrong).max() > 0.01


def test_a_layer_alone_attends_as_suits_its_device():
    assert attention_here() == Attention(choice="auto", target=Target("cpu"))


def test_under_a_keras_distribution_xla_splits_and_no_kernel_runs():
    mesh = keras.distribution.DeviceMesh((8,), ("batch",))
    with keras.distribution.DataParallel(mesh).scope():
        assert attention_here().choice == "blocked"
