"""A step of numbers that are not finite leaves no trace; nor does a spike."""

import jax
import numpy as np
import pytest

from tests.trainer.training.planting import plant
from trainer.config.schema import OptimizerConfig
from trainer.training.step import place_batch

PLANTED_EVERY, STEPS = 10, 1000


def bits(state):
    """Return every array of a state as it lies in memory."""
    return jax.tree.map(lambda array: np.asarray(array).tobytes(), state)


def step(made, batch, *, microbatches=1):
    placed = place_batch(batch, made.mesh, microbatches=microbatches)
    made.state, sums = made.step(made.state, made.frozen, placed)
    return sums


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="adapters"),
        pytest.param({"rank": 0}, id="all weights"),
        pytest.param({"dropout": 0.5, "clip_norm": None}, id="dropout"),
        pytest.param({"shape": (2, 4), "microbatches": 4}, id="2x4 and accumulation"),
        pytest.param(
            {"rank": 0, "optimizer": OptimizerConfig(name="muon")},
            id="layer by layer",
        ),
        pytest.param(
            {"optimizer": OptimizerConfig(name="sgd", ema_decay=0.9)}, id="averages"
        ),
        pytest.param({"skip_spikes": 6.0}, id="spikes"),
    ],
)
def test_a_step_that_is_not_finite_leaves_no_trace(trainee, batches, settings):
    """The next one is bit for bit that of a run which never met it."""
    settings = {"family": "poisoned", **settings}
    microbatches = settings.pop("microbatches", 1)
    made, other = trainee(**settings), trainee(**settings)
    for one in (made, other):
        assert step(one, batches[0], microbatches=microbatches).is_applied
    before = bits(made.state)
    sums = step(made, plant(batches[1], sequence=5), microbatches=microbatches)
    assert not sums.is_applied
    assert not np.isfinite(float(sums.loss_sum))
    assert bits(made.state) == before
    for one in (made, other):
        assert step(one, batches[1], microbatches=microbatches).is_applied
    assert bits(made.state) == bits(other.state)
    assert int(made.state.slots["iteration"]) == 2


def test_a_hundred_of_a_thousand_steps_leave_no_trace(trainee, batches):
    made, losses = trainee(family="poisoned"), []
    for number in range(STEPS):
        is_planted = number % PLANTED_EVERY == 3
        batch = batches[number % len(batches)]
        before = bits(made.state) if is_planted else None
        sums = step(made, plant(batch) if is_planted else batch)
        assert bool(sums.is_applied) != is_planted
        if is_planted:
            assert bits(made.state) == before
        else:
            losses.append(float(sums.loss_sum) / float(sums.loss_tokens))
    updates = STEPS - STEPS // PLANTED_EVERY
    assert int(made.state.slots["iteration"]) == len(losses) == updates
    assert losses[-1] < losses[0] - 0.4
    assert all(np.isfinite(array).all() for array in jax.tree.leaves(made.state))


def test_a_gradient_whose_norm_overflows_is_left_out(trainee, batches):
    """The loss is finite: only the norm tells."""
    made = trainee(terms={"z_loss": 1e38}, clip_norm=None)
    before = bits(made.state)
    sums = step(made, batches[0])
    assert np.isfinite(float(sums.loss_sum))
    assert not np.isfinite(float(sums.grad_norm))
    assert not sums.is_applied
    assert bits(made.state) == before


def test_a_spike_is_left_out_once_enough_updates_are_known(trainee, batches):
    """A batch that is new after many of one is above all losses before."""
    made = trainee(skip_spikes=0.01, optimizer=OptimizerConfig(learning_rate=1e-2))
    early = [bool(step(made, batches[n % 2]).is_applied) for n in range(64)]
    assert all(early)
    before = bits(made.state)
    sums = step(made, batches[3])
    assert np.isfinite(float(sums.loss_sum))
    assert not sums.is_applied
    assert bits(made.state) == before


def test_without_the_key_no_slot_is_kept_for_spikes(trainee):
    assert not [n for n in trainee().state.slots if n.startswith("recent/")]
