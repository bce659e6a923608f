"""A program that is looked at ahead is the one that training runs."""

import jax
import pytest

from trainer.__main__ import compose
from trainer.model.assemble import initial_arrays, split
from trainer.tasks.program import step_program
from trainer.tasks.session import build_session
from trainer.training.step import TrainState, place_batch


@pytest.fixture(scope="module", params=[(), ("trainer.microbatch_size=4",)])
def config(request, repository):
    preset = repository / "tests/golden/keras_hub/gemma2"
    return compose(
        [
            f"preset.name={preset}",
            "mesh=2x4",
            "data.sequence_length=64",
            "trainer.global_batch_size=8",
            *request.param,
        ]
    )


@pytest.fixture(scope="module")
def program(config):
    return step_program(config, jax.devices())


@pytest.fixture(scope="module")
def arrays(config, program):
    """What training gives to its step."""
    session = build_session(config)
    everything = initial_arrays(
        session.model, load_weights=True, adapter=None, seed=0, only_frozen=False
    )
    trainable, frozen = split(everything, session.model)
    step = next(iter(session.open_data().train.batches()))
    batch = place_batch(step.batch, session.mesh, microbatches=session.microbatches)
    return TrainState(trainable, program.optimizer.initial_slots()), frozen, batch


def described(x):
    return x.shape, x.dtype, x.sharding.spec


def test_its_shapes_are_those_of_training(program, arrays):
    assert jax.tree.map(described, program.arguments()) == jax.tree.map(
        described, arrays
    )


def test_it_compiles_to_a_step_that_takes_the_arrays_of_training(program, arrays):
    state, sums = program.lower().compile()(*arrays)
    assert float(sums.loss_sum) > 0
    assert int(state.slots["iteration"]) == 1
