"""The embedding is made whole over `batch` before its rows are looked up."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from gemma.presets import open_preset
from trainer.distribution.mesh import build_mesh
from trainer.model.assemble import build_model
from trainer.model.placement import BLOCK_ROWS
from trainer.model.working_memory import FEW_ROWS

ROWS = 4 * FEW_ROWS


def model_on(repository, shape, hidden_dim):
    """Gemma 2 with many tokens, on eight devices."""
    golden = open_preset(str(repository / "tests/golden/keras_hub/gemma2"))
    config = dataclasses.replace(
        golden.config, vocabulary_size=ROWS, hidden_dim=hidden_dim
    )
    preset = dataclasses.replace(golden, config=config)
    return build_model(
        preset, build_mesh(shape, jax.devices()), dtype="float32", lora=None
    )


def gathered(model):
    """Return a table, what the constraint makes of it, and the program's gathers."""
    tree, placement = model.tree, model.placement
    variable = tree["token_embedding/embeddings"]
    table = jax.random.normal(jax.random.key(0), variable.shape)
    placed = jax.device_put(table, placement.sharding(variable))
    program = jax.jit(placement.constraints(tree).embedding).lower(placed).compile()
    sizes = re.findall(r"f32\[([\d,]+)\]\S* all-gather\(", program.as_text())
    return (
        table,
        program(placed),
        {int(np.prod([*map(int, s.split(","))])) for s in sizes},
    )


@pytest.mark.parametrize("shape", [(8, 1), (2, 4), (4, 2)])
def test_every_row_comes_back_where_it_was(repository, shape):
    table, whole, _ = gathered(model_on(repository, shape, hidden_dim=16))
    np.testing.assert_array_equal(whole, table)
    assert whole.sharding.spec[:2] in (("model",), ("model", None), (None,), ())


def test_narrow_parts_are_gathered_a_block_of_rows_at_a_time(repository):
    _, _, sizes = gathered(model_on(repository, (8, 1), hidden_dim=16))
    assert sizes == {BLOCK_ROWS * 16}


def test_parts_of_whole_lanes_are_gathered_at_once(repository):
    _, _, sizes = gathered(model_on(repository, (2, 4), hidden_dim=256))
    assert sizes == {ROWS // 4 * 256}


def test_a_small_table_is_gathered_at_once(repository):
    _, _, sizes = gathered(model_on(repository, (2, 4), hidden_dim=16))
    assert sizes == {ROWS // 4 * 16}


def test_a_gradient_goes_back_to_the_row_that_it_is_of(repository):
    model = model_on(repository, (8, 1), hidden_dim=16)
    table, _, _ = gathered(model)
    gather = model.placement.constraints(model.tree).embedding
    gradient = jax.jit(jax.grad(lambda t: (gather(t) * table).sum()))(table)
    np.testing.assert_array_equal(gradient, table)
