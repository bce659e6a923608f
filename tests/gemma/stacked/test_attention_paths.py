"""A whole model gives the same with every path of attention, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma.attention import Attention
from gemma.stacked import Stacked
from gemma.stacked.tree import stack_values

RELATIVE = 1e-5  # float32, three layers, against the largest number of each array
LENGTH = 270  # more than one block of whole scores, no multiple of a kernel's 128


@pytest.fixture(scope="module")
def packed():
    """Two rows in one sequence, and padding after them."""
    ids = np.random.default_rng(0).integers(3, 96, size=(1, LENGTH)).astype("int32")
    segments = np.repeat([[1, 2, 0]], [100, 150, 20], axis=1).astype("int32")
    return {"token_ids": ids, "segment_ids": segments}


def gradients(backbone, packed, attend):
    stacked = Stacked(backbone, attend=attend)

    @jax.jit
    def both(weights):
        def loss(weights):
            hidden = stacked.hidden(weights, **packed, remat="block")
            return jnp.square(hidden[packed["segment_ids"] > 0]).mean()

        return jax.value_and_grad(loss)(weights)

    return both(stack_values(stacked.tree))


def test_paths_give_the_same_loss_and_gradients(build, packed):
    """Windows of 60 places: rows of 100 and 150 reach beyond them."""
    backbone = build("gemma2", 3, sliding_window_size=60)
    value, wanted = gradients(backbone, packed, Attention(choice="reference"))
    for attend in (
        Attention(choice="blocked"),
        Attention(choice="splash", interpret=True),
    ):
        loss, got = gradients(backbone, packed, attend)
        assert loss == pytest.approx(float(value), rel=RELATIVE)
        for path, gradient in wanted.items():
            difference = jnp.abs(got[path] - gradient).max()
            assert difference <= RELATIVE * jnp.abs(gradient).max(), path
