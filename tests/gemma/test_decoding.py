"""The decoder: rows of unequal length, stops, limits, draws."""

import numpy as np
import pytest

from gemma.decoding import Decoder
from gemma.stacked import Stacked
from gemma.stacked.tree import stack_values

PROMPTS = [[2, 7, 11, 40], [2, 9], [2, 30, 31, 32, 33, 34, 35]]


@pytest.fixture(scope="module")
def stacked(build):
    return Stacked(build("gemma2", 3))


@pytest.fixture(scope="module")
def weights(stacked):
    return stack_values(stacked.tree)


@pytest.fixture(scope="module")
def decoder(stacked):
    return Decoder(stacked, stop_token_ids=())


@pytest.fixture(scope="module")
def answers(decoder, weights):
    return decoder.generate(weights, PROMPTS, max_new_tokens=8)


def test_every_row_is_answered_as_if_alone(decoder, weights, answers):
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert decoder.generate(weights, [prompt], max_new_tokens=8) == [answer]
        assert len(answer) == 8


def test_a_row_ends_before_its_stop_token_and_others_go_on(stacked, weights, answers):
    stop = answers[0][2]
    decoder = Decoder(stacked, stop_token_ids=(stop,))
    found = decoder.generate(weights, PROMPTS, max_new_tokens=8)
    expected = [a[: a.index(stop)] if stop in a else a for a in answers]
    assert found == expected
    assert len(found[0]) <= 2


def test_every_row_may_have_its_own_limit(decoder, weights, answers):
    found = decoder.generate(weights, PROMPTS, max_new_tokens=[3, 0, 8])
    assert found == [answers[0][:3], [], answers[2]]


def test_rows_that_fill_up_the_batch_change_nothing(stacked, weights, answers):
    decoder = Decoder(stacked, stop_token_ids=(), batch_multiple=8)
    assert decoder.generate(weights, PROMPTS, max_new_tokens=8) == answers


def test_draws_repeat_with_their_seed(decoder, weights, answers):
    def draw(seed):
        return decoder.generate(
            weights, PROMPTS, max_new_tokens=8, temperature=1.0, seed=seed
        )

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    assert draw(0) != answers


def test_a_low_temperature_takes_the_likeliest(decoder, weights, answers):
    found = decoder.generate(weights, PROMPTS, max_new_tokens=8, temperature=1e-4)
    assert found == answers


@pytest.mark.parametrize("prompts", [[], [[2], []]])
def test_prompts_without_ids_are_refused(decoder, weights, prompts):
    with pytest.raises(ValueError, match="at least one, each with an id or more"):
        decoder.generate(weights, prompts, max_new_tokens=8)


@pytest.mark.parametrize("limits", [-1, [8], [1, 2, -3]])
def test_limits_that_do_not_belong_to_the_prompts_are_refused(decoder, weights, limits):
    with pytest.raises(ValueError, match="one for each of the 3 prompts, received"):
        decoder.generate(weights, PROMPTS, max_new_tokens=limits)


def test_numpy_prompts_will_do(decoder, weights, answers):
    prompts = [np.array(prompt) for prompt in PROMPTS]
    assert decoder.generate(weights, prompts, max_new_tokens=8) == answers
