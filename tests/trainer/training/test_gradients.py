"""Loss and gradients of the compiled step against a plain model in float64.

The bound everywhere is that of a float32 dense model: 1e-6, or twice its own distance
from float64, relative and in norm.
"""

import jax
import numpy as np
import pytest

from tests.trainer.training.conftest import make_batch
from tests.trainer.training.reference_model import loss_and_gradients
from trainer.config.schema import OptimizerConfig

PLAIN = {"z_loss": 0.0, "label_smoothing": 0.0}
BOTH = {"z_loss": 1e-3, "label_smoothing": 0.1}
RATE = 1e-2  # of the schedule that trainees have
READABLE = OptimizerConfig(name="sgd", beta_1=0.9)  # momentum: -rate x gradient

TRAINED = {
    "lora": {"rank": 4},
    "full": {"rank": 0},
    "embedding": {"rank": 4, "train_embedding": True},
}
CASES = {
    # family, trained, mesh, microbatches, terms: each dimension of the promise
    "lora-1x1": ("gemma2", "lora", (1, 1), 1, PLAIN),
    "lora-8x1-in-2": ("gemma2", "lora", (8, 1), 2, PLAIN),
    "lora-2x4-in-4-terms": ("gemma2", "lora", (2, 4), 4, BOTH),
    "lora-1x8-uncapped-terms": ("gemma3", "lora", (1, 8), 1, BOTH),
    "embedding-1x1-in-2": ("gemma2", "embedding", (1, 1), 2, PLAIN),
    "embedding-2x4": ("gemma2", "embedding", (2, 4), 1, PLAIN),
    "full-1x1-in-4-terms": ("gemma2", "full", (1, 1), 4, BOTH),
    "full-1x8-in-2": ("gemma2", "full", (1, 8), 2, PLAIN),
    "full-8x1": ("gemma2", "full", (8, 1), 1, PLAIN),
    "full-2x4-uncapped-terms": ("gemma3", "full", (2, 4), 1, BOTH),
}


@pytest.fixture(scope="module")
def batch():
    """Return 16 sequences whose numbers of positions with loss differ much."""
    batch = make_batch(0, sequences=16)
    counts = np.linspace(0, 24, 16).astype(int)[:, None]
    batch["loss_mask"] &= np.arange(24) < counts
    return batch


@pytest.fixture(scope="module")
def reference(batch):
    """Return the plain model's results for a case, computed once for all its meshes."""
    known = {}

    def results(made, dtype, *, family, trained, terms):
        key = (family, trained, dtype, *terms.values())
        if key not in known:
            config, weights = made.model.stacked.config, {**made.frozen, **made.start}
            known[key] = loss_and_gradients(config, weights, batch, dtype, **terms)
        return known[key]

    return results


def distance(found, true):
    found, true = (
        np.concatenate([np.ravel(np.asarray(x, "float64")) for x in jax.tree.leaves(t)])
        for t in (found, true)
    )
    return np.linalg.norm(found - true) / np.linalg.norm(true)


def random_adapters(state, shardings):
    """Return the state with both factors away from zero."""
    random = np.random.RandomState(1)
    trainable = {
        path: jax.device_put(
            (0.1 * random.normal(size=a.shape)).astype("float32"), shardings[path]
        )
        if "/lora_kernel_" in path
        else a
        for path, a in state.trainable.items()
    }
    return state._replace(trainable=trainable)


@pytest.mark.parametrize("case", CASES)
def test_the_step_has_the_gradient_of_one_big_dense_batch(
    trainee, batch, reference, case
):
    family, trained, shape, microbatches, terms = CASES[case]
    made = trainee(
        shape,
        family=family,
        optimizer=READABLE,
        clip_norm=None,
        terms=terms,
        **TRAINED[trained],
    )
    made.state = random_adapters(made.state, made.model.shardings())
    made.start = {p: np.asarray(a) for p, a in made.state.trainable.items()}
    (loss,), _ = made.train([batch], microbatches=microbatches, told="minimised_sum")
    gradients = {
        path: np.asarray(made.state.slots[f"momentum/{path}"], "float64") / -RATE
        for path in made.model.trainable
    }
    same = {"family": family, "trained": trained, "terms": terms}
    dense, exact = (reference(made, t, **same) for t in ("float32", "float64"))
    assert distance(loss, exact[0]) <= max(1e-6, 2 * distance(dense[0], exact[0]))
    dense, exact = ({p: g[p] for p in gradients} for _, g in (dense, exact))
    assert distance(gradients, exact) <= max(1e-6, 2 * distance(dense, exact))
