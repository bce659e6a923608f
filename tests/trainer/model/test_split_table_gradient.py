"""The gradient of a trained table is nowhere whole where `batch` splits the table."""

import re

import numpy as np
import pytest

from tests.trainer.model.gradients import full_model, gradients

SAME = 2e-5  # relative to the largest; float32 sums over devices in another order
TILES = {"vocabulary_size": 8192}  # four of them, or two on each device
OPERATION = re.compile(r"= f32\[([\d,]+)\]\S* ([\w-]+)\(")


def largest_sums(text):
    """Return the elements of the largest array that a program adds up or stacks."""
    adding = ("scatter", "all-reduce", "reduce-scatter", "dynamic-update-slice")
    sizes = [
        int(np.prod([int(n) for n in shape.split(",")]))
        for shape, name in OPERATION.findall(text)
        if name in adding
    ]
    return max(sizes)


@pytest.mark.parametrize("shape", [(8, 1), (4, 2)])
def test_no_device_adds_up_the_gradient_of_a_whole_table(repository, shape):
    one, _ = gradients(full_model(repository, (1, 1), **TILES), sequences=8)
    model = full_model(repository, shape, **TILES)
    many, text = gradients(model, sequences=8)
    table = "token_embedding/embeddings"
    scale = np.abs(one[table]).max()
    np.testing.assert_allclose(many[table], one[table], atol=SAME * scale)
    split = model.placement.sharding(model.tree[table])
    assert many[table].sharding.is_equivalent_to(split, 2)
    assert largest_sums(text) <= one[table].size // shape[1] // 2
