"""Hidden states lie over `model` along the sequence between products, by rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.trainer.model.gradients import full_model, gradients

SAME = 2e-5  # relative to the largest; float32 sums over devices in another order


@pytest.fixture(scope="module")
def models(repository):
    return {shape: full_model(repository, shape) for shape in ((1, 1), (2, 4))}


@pytest.fixture(scope="module")
def constraints(models):
    model = models[2, 4]
    return model.placement.constraints(model.tree)


def spec_of(function, *args):
    return jax.jit(function)(*args).sharding.spec


def test_a_sequence_is_split_where_it_divides(constraints):
    x = jnp.zeros((2, 64, 48))
    assert spec_of(constraints.activation, x) == PartitionSpec("batch", "model")
    assert spec_of(constraints.leave, x) == PartitionSpec("batch", "model")
    assert spec_of(constraints.enter, x) == PartitionSpec("batch")


def test_rows_are_looked_up_for_whole_sequences(constraints):
    """Looked up for a part of one, they would be in a table that is gathered whole."""
    x = jnp.zeros((2, 64, 48))
    assert spec_of(constraints.looked_up, x) == PartitionSpec("batch")


def test_a_sequence_that_does_not_divide_stays_whole(constraints):
    x = jnp.zeros((2, 66, 48))
    assert spec_of(constraints.activation, x) == PartitionSpec("batch")


def test_gradients_lie_as_what_they_are_of(constraints):
    """What was gathered for a product is scattered on the way back, and vice versa."""
    x = jnp.zeros((2, 64, 48))

    def back(constraint):
        return spec_of(lambda x: jax.vjp(constraint, x)[1](x)[0], x)

    assert back(constraints.enter) == PartitionSpec("batch", "model")
    assert back(constraints.leave) == PartitionSpec("batch")


def test_splitting_changes_no_gradient_and_divides_what_is_kept(models):
    one, _ = gradients(models[1, 1])
    many, text = gradients(models[2, 4])
    for path, gradient in one.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(
            many[path], gradient, atol=SAME * scale, err_msg=path
        )
    assert "f32[2,2,8,48]" in text  # of both scan steps, half the batch, a quarter
    assert "f32[2,2,32,48]" not in text  # ... and not the whole sequence
