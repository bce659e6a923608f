"""The decoder: rows of unequal length, stops, limits, draws, compilations."""

import jax
import numpy as np
import pytest

from gemma.decoding import Decoder, Sampler
from gemma.stacked import Constraints, Stacked
from gemma.stacked.tree import apart_values, stack_values

HOT = {"sampler": Sampler(temperature=4.0), "seed": 1}
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


def test_weights_that_are_apart_give_the_same_tokens(decoder, stacked, answers):
    weights = apart_values(stacked.tree)
    assert decoder.generate(weights, PROMPTS, max_new_tokens=8) == answers


@pytest.fixture(scope="module")
def varied(decoder, weights):
    """Rows without repetitions: a hot draw."""
    return decoder.generate(weights, PROMPTS, max_new_tokens=8, **HOT)


def test_a_row_ends_before_a_sequence_of_several_tokens(stacked, weights, varied):
    decoder = Decoder(stacked, (), stop_sequences=[varied[0][2:5]])
    found = decoder.generate(weights, PROMPTS, max_new_tokens=8, **HOT)
    assert found == [varied[0][:2], *varied[1:]]


def test_a_sequence_that_began_in_the_prompt_ends_nothing(stacked, weights, varied):
    stop = [PROMPTS[0][-1], varied[0][0]]
    decoder = Decoder(stacked, (), stop_sequences=[stop])
    assert decoder.generate(weights, PROMPTS, max_new_tokens=8, **HOT) == varied


def test_the_loop_ends_with_the_last_row(stacked, weights, answers):
    """With every first token a stop, each row's draw is made, but no step."""
    decoder = Decoder(stacked, [answer[0] for answer in answers])
    assert decoder.generate(weights, PROMPTS, max_new_tokens=8) == [[], [], []]


def test_draws_repeat_with_their_seed(decoder, weights, answers):
    def draw(seed):
        return decoder.generate(
            weights, PROMPTS, max_new_tokens=8, sampler=Sampler(), seed=seed
        )

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    assert draw(0) != answers


def test_draws_depend_on_no_other_row_and_no_padding(stacked, decoder, weights):
    def draw(decoder, prompts):
        return decoder.generate(
            weights, prompts, max_new_tokens=8, sampler=Sampler(), seed=3
        )

    drawn = draw(decoder, PROMPTS)
    long = [*PROMPTS[:2], [2, *range(10, 50)]]
    assert draw(decoder, PROMPTS[:1]) == drawn[:1]
    assert draw(decoder, long)[:2] == drawn[:2]
    assert draw(Decoder(stacked, (), batch_multiple=8), PROMPTS) == drawn


def test_a_low_temperature_takes_the_likeliest(decoder, weights, answers):
    cold = Sampler(temperature=1e-4)
    found = decoder.generate(weights, PROMPTS, max_new_tokens=8, sampler=cold)
    assert found == answers


@pytest.mark.parametrize(
    "sampler", [Sampler(top_k=1), Sampler(top_p=1e-6), Sampler(min_p=0.999)]
)
def test_a_filter_that_leaves_one_token_takes_the_likeliest(
    decoder, weights, answers, sampler
):
    found = decoder.generate(weights, PROMPTS, max_new_tokens=8, sampler=sampler)
    assert found == answers


def test_lengths_of_one_bucket_share_a_program(stacked, weights):
    decoder = Decoder(stacked, ())
    decoder.generate(weights, PROMPTS, max_new_tokens=8)
    assert decoder.programs == 1
    decoder.generate(weights, [[2, *range(10, 30)]] * 3, max_new_tokens=[3, 32, 0])
    assert decoder.programs == 1
    decoder.generate(weights, [[2, *range(10, 50)]] * 3, max_new_tokens=8)
    assert decoder.programs == 2


def test_settings_of_a_sampler_share_a_program(stacked, weights):
    decoder = Decoder(stacked, ())
    for temperature, top_k in ((0.7, 3), (1.3, 40)):
        decoder.generate(
            weights,
            PROMPTS,
            max_new_tokens=8,
            sampler=Sampler(temperature=temperature, top_k=top_k),
            seed=top_k,
        )
    assert decoder.programs == 1


def test_a_mesh_changes_no_token(build, answers, decoder, weights):
    """2x4 simulated devices: rows over `batch`, weights over both axes."""
    backbone = build("gemma2", 3)
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ("batch", "model"))
    sharding = jax.sharding.NamedSharding
    rows = sharding(mesh, jax.sharding.PartitionSpec("batch"))
    stacked = Stacked(
        backbone,
        Constraints(activation=lambda x: jax.lax.with_sharding_constraint(x, rows)),
    )
    placed = {
        path: jax.device_put(weight, sharding(mesh, spec_of(weight.shape)))
        for path, weight in weights.items()
    }
    over_mesh = Decoder(stacked, (), batch_multiple=2)
    assert over_mesh.generate(placed, PROMPTS, max_new_tokens=8) == answers
    sampler = Sampler(top_k=10)
    drawn = [
        one.generate(values, PROMPTS, max_new_tokens=8, sampler=sampler)
        for one, values in ((over_mesh, placed), (decoder, weights))
    ]
    assert drawn[0] == drawn[1]


def spec_of(shape):
    """Split the first dim that 4 divides over `model`, the next even one too."""
    axes = ["model", "batch"]
    spec = []
    for size in shape:
        fits = axes and size % (4 if axes[0] == "model" else 2) == 0
        spec.append(axes.pop(0) if fits else None)
    return jax.sharding.PartitionSpec(*spec)


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


def test_an_empty_stop_sequence_is_refused(stacked):
    with pytest.raises(ValueError, match="must have an id or more each"):
        Decoder(stacked, (), stop_sequences=[[5], []])
