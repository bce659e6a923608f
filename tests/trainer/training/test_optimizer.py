"""What every optimizer has in common: decay, learning rate, averages, clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gemma.abstract import build_abstract
from trainer.config.errors import ConfigError
from trainer.config.schema import OptimizerConfig
from trainer.training.optimizer import (
    StackedOptimizer,
    averaged_weights,
    clip_by_norm,
    global_norm,
)
from trainer.training.schedule import Schedule

LAYERS, STEPS = 3, 5
SHAPES = {
    "token_embedding/embeddings": (6, 4),
    "decoder_blocks/attention/query/kernel": (LAYERS, 4, 4),
    "decoder_blocks/pre_ffw_norm/scale": (LAYERS, 4),
}


class Array:
    def __init__(self, path, shape):
        self.shape, self.dtype = shape, jnp.dtype("float32")
        self.is_stacked = path.startswith("decoder_blocks/")


def schedule():
    return Schedule(
        "linear", peak=0.1, warmup_steps=2, num_train_steps=STEPS, final_fraction=0.0
    )


def build(config):
    replicated = NamedSharding(Mesh(jax.devices()[:1], ("batch",)), PartitionSpec())
    return StackedOptimizer(
        config,
        schedule(),
        {path: Array(path, shape) for path, shape in SHAPES.items()},
        shardings=dict.fromkeys(SHAPES, replicated),
        replicated=replicated,
        build_abstract=build_abstract,
    )


def numbers(seed):
    random = np.random.RandomState(seed)
    return {p: random.normal(size=s).astype("float32") for p, s in SHAPES.items()}


def test_weight_decay_spares_norms_and_embedding():
    optimizer = build(OptimizerConfig(weight_decay=0.5))
    weights = {path: np.ones(shape, "float32") for path, shape in SHAPES.items()}
    nothing = {path: np.zeros(shape, "float32") for path, shape in SHAPES.items()}
    moved, _ = optimizer.apply(nothing, weights, optimizer.initial_slots())
    changed = {
        path for path in SHAPES if not np.array_equal(moved[path], weights[path])
    }
    assert changed == {"decoder_blocks/attention/query/kernel"}


def test_the_learning_rate_follows_the_updates():
    optimizer = build(OptimizerConfig())
    slots = optimizer.initial_slots()
    seen = []
    for step in range(3):
        seen.append(float(optimizer.learning_rate(slots)))
        _, slots = optimizer.apply(numbers(step), numbers(0), slots)
    assert seen == pytest.approx([0.05, 0.1, 0.1])


def test_an_unknown_optimizer_is_told_with_the_known_ones():
    with pytest.raises(ConfigError, match="adamw, adafactor, lion, muon, sgd"):
        build(OptimizerConfig(name="adam"))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_averages_follow_the_weights_from_the_first_update_on(name):
    optimizer = build(OptimizerConfig(name=name, ema_decay=0.75))
    weights, slots = numbers(0), optimizer.initial_slots()
    assert averaged_weights(weights, slots) is weights
    expected = None
    for step in range(3):
        weights, slots = optimizer.apply(numbers(step + 1), weights, slots)
        expected = {
            path: weight if expected is None else 0.75 * expected[path] + 0.25 * weight
            for path, weight in weights.items()
        }
    found = averaged_weights(weights, slots)
    assert found.keys() == weights.keys()
    for path, average in found.items():
        assert not np.allclose(average, weights[path], atol=1e-4)
        np.testing.assert_allclose(average, expected[path], rtol=1e-6, atol=1e-7)


def test_weights_without_averages_stand_for_themselves():
    optimizer = build(OptimizerConfig())
    weights, slots = optimizer.apply(numbers(1), numbers(0), optimizer.initial_slots())
    assert averaged_weights(weights, slots) is weights


def test_clipping_scales_all_gradients_together():
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    norm = global_norm(gradients)
    assert float(norm) == 5.0
    assert float(clip_by_norm(gradients, norm, 1.0)["a"][0]) == pytest.approx(0.6)
    assert clip_by_norm(gradients, norm, None) is gradients
    assert float(clip_by_norm(gradients, norm, 10.0)["b"][0]) == 4.0


def test_adafactor_needs_no_second_stack_while_it_updates():
    replicated = NamedSharding(Mesh(jax.devices()[:1], ("batch",)), PartitionSpec())
    path = "decoder_blocks/ffw_linear/kernel"
    stack = jax.ShapeDtypeStruct((16, 128, 256), "float32", sharding=replicated)
    optimizer = StackedOptimizer(
        OptimizerConfig(name="adafactor"),
        schedule(),
        {path: Array(path, stack.shape)},
        shardings={path: replicated},
        replicated=replicated,
        build_abstract=build_abstract,
    )
    update = jax.jit(optimizer.apply, donate_argnums=(1, 2))
    compiled = update.lower({path: stack}, {path: stack}, optimizer.shapes()).compile()
    stack_bytes = 16 * 128 * 256 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 0.3 * stack_bytes
