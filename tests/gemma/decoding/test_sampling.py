"""Which tokens a sampler can draw, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma.decoding import GREEDY, SAMPLERS, Sampler, sampler_named
from gemma.decoding.sampling import draw, likeliest

PROBABILITIES = [0.05, 0.4, 0.1, 0.25, 0.2]
DRAWS = 4000


def drawn(sampler, probabilities=PROBABILITIES, logits=None):
    """Return how often each token was drawn from many rows of the same logits."""
    if logits is None:
        logits = np.log(probabilities)
    rows = jnp.tile(jnp.asarray(logits, "float32"), (DRAWS, 1))
    keys = jax.random.split(jax.random.key(0), DRAWS)
    found = draw(rows, sampler.values(), keys, filters=sampler.filters)
    return np.bincount(np.asarray(found), minlength=len(logits)) / DRAWS


def support(sampler, **kwargs):
    return set(np.flatnonzero(drawn(sampler, **kwargs)).tolist())


def test_without_filters_tokens_come_as_often_as_they_should():
    np.testing.assert_allclose(drawn(Sampler()), PROBABILITIES, atol=0.03)


def test_temperature_sharpens():
    expected = np.square(PROBABILITIES) / np.square(PROBABILITIES).sum()
    np.testing.assert_allclose(drawn(Sampler(temperature=0.5)), expected, atol=0.03)


@pytest.mark.parametrize(
    ("sampler", "tokens"),
    [
        (Sampler(top_k=1), {1}),
        (Sampler(top_k=3), {1, 3, 4}),
        (Sampler(top_k=9), {0, 1, 2, 3, 4}),
        (Sampler(top_p=0.39), {1}),
        (Sampler(top_p=0.41), {1, 3}),
        (Sampler(top_p=0.86), {1, 2, 3, 4}),
        (Sampler(min_p=0.3), {1, 3, 4}),
        (Sampler(min_p=0.2), {1, 2, 3, 4}),
    ],
)
def test_filters_leave_the_likeliest(sampler, tokens):
    assert support(sampler) == tokens


def test_top_p_counts_among_what_top_k_left():
    """0.4 and 0.25 alone: the first has 0.615 of them."""
    assert support(Sampler(top_k=2, top_p=0.6)) == {1}
    assert support(Sampler(top_k=2, top_p=0.62)) == {1, 3}


def test_filters_come_after_the_temperature():
    """Squared and normalised: 0.16, 0.0625 and 0.04 of 0.275, the first has 0.58."""
    assert support(Sampler(temperature=0.5, top_p=0.5)) == {1}
    assert support(Sampler(temperature=1.0, top_p=0.5)) == {1, 3}


def test_equal_tokens_stay_together():
    assert support(Sampler(top_k=1), logits=[3.0, -1.0, 3.0]) == {0, 2}


def test_negative_logits_keep_their_order():
    assert support(Sampler(top_k=2), logits=[-9.0, -1.0, -0.5, -7.0]) == {1, 2}


def test_the_first_of_equal_tokens_is_the_likeliest():
    logits = jnp.array([[1.0, 5.0, 5.0], [0.0, -1.0, -2.0]])
    assert likeliest(logits).tolist() == logits.argmax(-1).tolist() == [1, 0]


def test_names_stand_for_settings():
    assert sampler_named("greedy") is GREEDY
    assert sampler_named("top_k") == Sampler(temperature=1.0, top_k=5)
    assert sampler_named(Sampler(top_p=0.5)) == Sampler(top_p=0.5)
    assert {name for name, s in SAMPLERS.items() if s.is_greedy} == {"greedy"}


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="one of greedy, random.*received 'beam'"):
        sampler_named("beam")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature must be a number from 0, received -1"),
        ({"temperature": float("nan")}, "temperature must be a number from 0"),
        ({"top_k": 0}, "top_k must be None or from 1, received 0"),
        ({"top_k": 2.5}, "top_k must be None or from 1, received 2.5"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], received 0.0"),
        ({"min_p": 1.0}, r"min_p must lie in \[0, 1\), received 1.0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**settings)
