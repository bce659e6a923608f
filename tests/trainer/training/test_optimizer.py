"""Keras's optimizers on stacked arrays equal the same on the layers' own variables."""

import jax.numpy as jnp
import keras
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gemma.abstract import build_abstract
from trainer.config.errors import ConfigError
from trainer.config.schema import OptimizerConfig
from trainer.training.optimizer import StackedOptimizer, clip_by_global_norm
from trainer.training.schedule import Schedule

LAYERS, STEPS = 3, 5
SHAPES = {
    "token_embedding/embeddings": (6, 4),
    "decoder_blocks/attention/query/kernel": (LAYERS, 4, 4),
    "decoder_blocks/pre_ffw_norm/scale": (LAYERS, 4),
}


class Array:
    def __init__(self, shape):
        self.shape, self.dtype = shape, jnp.dtype("float32")


def schedule():
    return Schedule(
        "linear", peak=0.1, warmup_steps=2, num_train_steps=STEPS, final_fraction=0.0
    )


def build(config):
    import jax

    replicated = NamedSharding(Mesh(jax.devices()[:1], ("batch",)), PartitionSpec())
    return StackedOptimizer(
        config,
        schedule(),
        {path: Array(shape) for path, shape in SHAPES.items()},
        shardings=dict.fromkeys(SHAPES, replicated),
        replicated=replicated,
        build_abstract=build_abstract,
    )


def numbers(seed):
    random = np.random.RandomState(seed)
    return {p: random.normal(size=s).astype("float32") for p, s in SHAPES.items()}


def unstacked(arrays):
    """Return each layer's array under a name of its own."""
    layers = {}
    for path, array in arrays.items():
        if path.startswith("decoder_blocks"):
            layers |= {f"{path}#{i}": array[i] for i in range(LAYERS)}
        else:
            layers[path] = array
    return layers


@pytest.mark.parametrize(
    ("config", "keras_optimizer"),
    [
        (
            OptimizerConfig(name="adamw", weight_decay=0.1),
            lambda: keras.optimizers.AdamW(schedule(), weight_decay=0.1, epsilon=1e-8),
        ),
        (
            OptimizerConfig(name="sgd", beta_1=0.9),
            lambda: keras.optimizers.SGD(schedule(), momentum=0.9),
        ),
    ],
)
def test_stacked_updates_equal_those_of_single_variables(config, keras_optimizer):
    optimizer, weights = build(config), numbers(0)
    slots = optimizer.initial_slots()
    variables = {
        name: keras.Variable(value, name=name.replace("/", "."))
        for name, value in unstacked(weights).items()
    }
    plain = keras_optimizer()
    plain.exclude_from_weight_decay(var_names=["scale", "embeddings"])
    for step in range(STEPS):
        gradients = numbers(step + 1)
        weights, slots = optimizer.apply(gradients, weights, slots)
        plain.apply(list(unstacked(gradients).values()), list(variables.values()))
    for name, value in unstacked(weights).items():
        np.testing.assert_allclose(value, variables[name].value, rtol=1e-6, atol=1e-7)


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


def test_an_optimizer_that_stacking_would_change_is_refused():
    with pytest.raises(ConfigError, match="adamw or sgd"):
        build(OptimizerConfig(name="adafactor"))


def test_clipping_scales_all_gradients_together():
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    clipped, norm = clip_by_global_norm(gradients, 1.0)
    assert float(norm) == 5.0
    assert float(clipped["a"][0]) == pytest.approx(0.6)
    assert clip_by_global_norm(gradients, None)[0] is gradients
    assert float(clip_by_global_norm(gradients, 10.0)[0]["b"][0]) == 4.0
