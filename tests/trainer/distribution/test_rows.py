"""Sequences of a global batch on the devices that need them."""

import jax
import numpy as np
import pytest

from trainer.distribution.mesh import build_mesh
from trainer.distribution.rows import local_sequences, place_sequences


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (1, 8)])
@pytest.mark.parametrize("microbatches", [None, 1, 2])
def test_a_process_alone_needs_all_sequences(shape, microbatches):
    mesh = build_mesh(shape, jax.devices())
    held = local_sequences(16, mesh, microbatches=microbatches)
    assert held.tolist() == list(range(16))


@pytest.mark.parametrize("microbatches", [None, 1, 2, 4])
def test_sequences_lie_where_their_numbers_say(microbatches):
    mesh = build_mesh((4, 2), jax.devices())
    rows = np.arange(16 * 3).reshape(16, 3)
    placed = place_sequences(
        {"token_ids": rows}, mesh, sequences=16, microbatches=microbatches
    )["token_ids"]
    assert placed.sharding.spec[-2] == "batch"
    np.testing.assert_array_equal(np.asarray(placed).reshape(16, 3), rows)
