"""The compiled step: equal on every mesh, with accumulation, and to Keras's own."""

import jax
import numpy as np
import pytest

from gemma.abstract import is_abstract
from trainer.config.schema import OptimizerConfig
from trainer.training.step import place_batch

ACROSS_MESHES = 2e-5  # float32 sums in another order, through Adam's division


@pytest.fixture(scope="module")
def reference(trainee, batches):
    return trainee((1, 1)).train(batches)[0]


def test_the_loss_falls_on_a_batch_that_repeats(trainee, batches):
    losses, _ = trainee().train([batches[0]] * 8)
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize("shape", [(2, 4), (1, 8), (8, 1), (4, 2)])
def test_every_mesh_reaches_the_losses_of_one_device(
    trainee, reference, shape, batches
):
    losses, _ = trainee(shape).train(batches)
    np.testing.assert_allclose(losses, reference, rtol=ACROSS_MESHES)


def test_gemma_3_learns_the_same_on_a_mesh(trainee, batches):
    one = trainee((1, 1), family="gemma3").train(batches)[0]
    many = trainee((2, 4), family="gemma3").train(batches)[0]
    np.testing.assert_allclose(many, one, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2)])
def test_accumulation_gives_the_gradient_of_one_big_batch(
    trainee, reference, shape, batches
):
    losses, _ = trainee(shape).train(batches, microbatches=4)
    np.testing.assert_allclose(losses, reference, rtol=ACROSS_MESHES)


def test_fifty_steps_on_2x4_reach_the_losses_of_one_device(trainee, batches):
    """The promise of the README: 1e-4 relative over 50 steps."""
    rows = [batches[step % len(batches)] for step in range(50)]
    settings = OptimizerConfig(name="adamw")
    one = trainee((1, 1), optimizer=settings).train(rows)[0]
    many = trainee((2, 4), optimizer=settings).train(rows)[0]
    np.testing.assert_allclose(many, one, rtol=1e-4)


def test_full_fine_tuning_is_the_same_on_a_mesh(trainee, batches):
    whole = trainee((1, 1), rank=0).train(batches)[0]
    split = trainee((2, 4), rank=0).train(batches)[0]
    np.testing.assert_allclose(split, whole, rtol=1e-4)  # 168,000 weights move
    assert whole[0] == pytest.approx(float(trainee((1, 1)).train(batches[:1])[0][0]))


def test_the_state_keeps_its_shardings_and_compiles_once(trainee, batches):
    made = trainee((2, 4))
    before = {path: a.sharding for path, a in made.state.trainable.items()}
    made.train(batches[:2])
    assert {path: a.sharding for path, a in made.state.trainable.items()} == before
    made.state = jax.tree.map(  # as a checkpoint brings it back
        lambda a: jax.device_put(np.asarray(a), a.sharding), made.state
    )
    made.train(batches[2:])
    assert made.step._cache_size() == 1


def test_a_width_compiles_once_whatever_has_loss(trainee, batches):
    made = trainee((1, 1))
    narrow = {name: x[:, :16] for name, x in batches[1].items()}
    one_token = np.zeros_like(batches[2]["loss_mask"])
    one_token[0, 0] = True
    sparse = batches[2] | {"loss_mask": one_token}
    made.train([batches[0], narrow, sparse, narrow, batches[3]])
    assert made.step._cache_size() == 2


def test_a_step_takes_over_the_memory_of_the_state(trainee, batches):
    made = trainee((1, 1), rank=0)
    placed = place_batch(batches[0], made.mesh, microbatches=1)
    program = made.step.lower(made.state, made.frozen, placed).compile()
    state_bytes = sum(array.nbytes for array in jax.tree.leaves(made.state))
    assert program.memory_analysis().alias_size_in_bytes == state_bytes
    program(made.state, made.frozen, placed)
    assert all(array.is_deleted() for array in jax.tree.leaves(made.state))
    assert not any(array.is_deleted() for array in jax.tree.leaves(made.frozen))


def test_slots_are_sharded_as_their_weights(trainee):
    made = trainee((2, 4))
    path = "decoder_blocks/attention/query/lora_kernel_a"
    slots = {n: a for n, a in made.state.slots.items() if n.endswith(path)}
    assert len(slots) == 2
    for array in slots.values():
        assert array.sharding == made.state.trainable[path].sharding


def test_every_variable_of_the_keras_model_stays_empty(trainee, batches):
    made = trainee((1, 2))
    made.train(batches[:1])
    assert is_abstract(made.model.stacked.backbone.variables)


def test_only_adapters_change(trainee, batches):
    made = trainee()
    before = {path: np.asarray(a) for path, a in made.frozen.items()}
    made.train(batches[:2])
    assert all("/lora_kernel_" in path for path in made.state.trainable)
    for path, array in made.frozen.items():
        assert np.array_equal(before[path], array), path


def test_a_batch_without_loss_changes_nothing_and_stays_finite(trainee, batches):
    made = trainee(optimizer=OptimizerConfig(name="sgd", beta_1=0.0))
    before = jax.tree.map(np.asarray, made.state.trainable)
    empty = batches[0] | {"loss_mask": np.zeros_like(batches[0]["loss_mask"])}
    batch = place_batch(empty, made.mesh, microbatches=1)
    made.state, sums = made.step(made.state, made.frozen, batch)
    assert float(sums.loss_sum) == float(sums.grad_norm) == 0.0
    for path, array in made.state.trainable.items():
        assert np.array_equal(before[path], array), path


def test_dropout_repeats_for_a_seed_and_changes_the_loss(trainee, batches):
    plain = trainee().train(batches)[0]
    first = trainee(dropout=0.5).train(batches)[0]
    again = trainee(dropout=0.5).train(batches)[0]
    assert first == again
    assert first[1:] != plain[1:]


def test_shared_adapters_train_on_a_mesh_as_on_one_device(trainee, batches):
    settings = {"factorisation": "shared", "targets": ["*"]}
    one = trainee((1, 1), **settings).train(batches)[0]
    many = trainee((2, 2), **settings).train(batches)[0]
    np.testing.assert_allclose(many, one, rtol=ACROSS_MESHES)
