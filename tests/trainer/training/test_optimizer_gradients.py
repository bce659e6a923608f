"""The gradient that an optimizer gets, read from the first momentum of SGD."""

import numpy as np
import pytest

from trainer.config.schema import OptimizerConfig

# relative, in norm over the tree: float32 itself moves by 0.6e-6 to 1.5e-6 between
# any two ways to cut the batch, since the shapes of its products change
SAME_GRADIENT = 2e-6
READABLE = OptimizerConfig(
    name="sgd", beta_1=0.9
)  # momentum: 0.9 x 0 - rate x gradient


def gradient(trainee, batch, shape=(1, 1), *, microbatches=1, rank):
    """Return the gradient of the first step as one vector, but for its scale."""
    made = trainee(shape, rank=rank, optimizer=READABLE, clip_norm=None)
    made.train([batch], microbatches=microbatches)
    slots = made.state.slots
    names = sorted(name for name in slots if name.startswith("momentum/"))
    return np.concatenate([np.ravel(slots[name]).astype("float64") for name in names])


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
def test_parts_of_a_batch_give_its_gradient(trainee, batches, rank):
    counts = batches[0]["loss_mask"].sum(axis=1)
    assert len(set(counts)) > 3  # a mean of the parts' means would be another
    whole = gradient(trainee, batches[0], rank=rank)
    for shape, microbatches in [((1, 1), 4), ((4, 1), 2)]:
        parts = gradient(
            trainee, batches[0], shape, microbatches=microbatches, rank=rank
        )
        distance = np.linalg.norm(parts - whole) / np.linalg.norm(whole)
        assert distance < SAME_GRADIENT
