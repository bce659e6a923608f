"""20 updates of a real model's stacks equal Keras's on every layer's own variables."""

import jax
import keras
import numpy as np
import pytest

from gemma.abstract import build_abstract
from gemma.lora import lora_settings
from trainer.config.schema import OptimizerConfig
from trainer.distribution.mesh import build_mesh
from trainer.model.assemble import build_model
from trainer.training.optimizer import StackedOptimizer
from trainer.training.schedule import Schedule

STEPS = 20
SAME_UPDATE = 1e-6  # of all that a tensor moved, in norm: float32 sums in other orders
PEAK, DECAY = 0.1, 0.1  # so large that a weight's own rounding is not compared


def schedule():
    return Schedule(
        "wsd", peak=PEAK, warmup_steps=4, num_train_steps=STEPS, final_fraction=0.1
    )


OPTIMIZERS = {
    "adamw": lambda: keras.optimizers.AdamW(
        schedule(), weight_decay=DECAY, beta_1=0.8, beta_2=0.95, epsilon=1e-6
    ),
    "adafactor": lambda: keras.optimizers.Adafactor(schedule(), weight_decay=DECAY),
    "lion": lambda: keras.optimizers.Lion(
        schedule(), weight_decay=DECAY, beta_1=0.8, beta_2=0.95
    ),
    "muon": lambda: keras.optimizers.Muon(
        schedule(),
        weight_decay=DECAY,
        adam_weight_decay=DECAY,
        adam_beta_1=0.8,
        adam_beta_2=0.95,
        epsilon=1e-6,
    ),
    "sgd": lambda: keras.optimizers.SGD(schedule(), momentum=0.8, weight_decay=DECAY),
}


def config(name, **more):
    return OptimizerConfig(
        name=name, weight_decay=DECAY, beta_1=0.8, beta_2=0.95, epsilon=1e-6, **more
    )


def make(preset, settings, shape=(1, 1), *, rank=0, **lora):
    """Return a model's trained part of the tree, and the optimizer over it."""
    mesh = build_mesh(shape, jax.devices()[: shape[0] * shape[1]])
    adapters = lora_settings(rank, **lora) if rank else None
    model = build_model(preset, mesh, dtype="float32", lora=adapters)
    tree = {path: model.tree[path] for path in model.trainable}
    optimizer = StackedOptimizer(
        settings,
        schedule(),
        tree,
        shardings=model.shardings(tree),
        replicated=model.placement.replicated(),
        build_abstract=build_abstract,
    )
    return tree, optimizer, model.shardings(tree)


def numbers(tree, seed):
    random = np.random.RandomState(seed)
    return {
        p: (0.05 * random.normal(size=v.shape)).astype("float32")
        for p, v in tree.items()
    }


def layers(tree, arrays):
    """Return every variable's own array by its path."""
    return {
        member.path: arrays[path][layer] if variable.is_stacked else arrays[path]
        for path, variable in tree.items()
        for layer, member in enumerate(variable.members)
    }


def train_stacked(tree, optimizer, shardings):
    weights = {p: jax.device_put(a, shardings[p]) for p, a in numbers(tree, 0).items()}
    slots = optimizer.initial_slots()
    apply = jax.jit(
        optimizer.apply,
        donate_argnums=(1, 2),
        out_shardings=(shardings, optimizer.shardings),
    )
    for step in range(STEPS):
        weights, slots = apply(numbers(tree, step + 1), weights, slots)
    return weights, slots


def train_apart(tree, plain):
    """Train variables that Keras alone knows, one a layer."""
    start = layers(tree, numbers(tree, 0))
    variables = [keras.Variable(a, name=p.replace("/", ".")) for p, a in start.items()]
    plain.exclude_from_weight_decay(var_names=["scale", "embeddings"])
    plain.build(variables)
    apply = jax.jit(plain.stateless_apply)
    values = [v.value for v in variables]
    slots = [v.value for v in plain.variables]
    for step in range(STEPS):
        gradients = list(layers(tree, numbers(tree, step + 1)).values())
        values, slots = apply(slots, gradients, values)
    return dict(zip(start, values, strict=True))


def largest_distance(tree, weights, expected):
    """Return the largest distance of a variable, relative to what it moved by."""
    start, found = layers(tree, numbers(tree, 0)), layers(tree, weights)
    assert found.keys() == expected.keys()
    return max(
        float(
            np.linalg.norm(found[path] - expected[path])
            / np.linalg.norm(expected[path] - start[path])
        )
        for path in found
    )


@pytest.fixture(scope="session")
def presets(golden_preset, repository):
    from gemma.presets import open_preset

    gemma3 = open_preset(str(repository / "tests/golden/keras_hub/gemma3"))
    return {"gemma2": golden_preset, "gemma3": gemma3}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("family", "shape", "lora"),
    [
        ("gemma3", (2, 4), {}),
        ("gemma2", (1, 1), {"rank": 4, "targets": ["query", "ffw_*"]}),
    ],
    ids=["full", "lora"],
)
def test_updates_of_stacks_equal_those_of_single_variables(
    presets, name, family, shape, lora
):
    made = make(presets[family], config(name), shape, **lora)
    weights, _ = train_stacked(*made)
    expected = train_apart(made[0], OPTIMIZERS[name]())
    assert largest_distance(made[0], weights, expected) < SAME_UPDATE


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_lie_as_their_weights(presets, name):
    settings = config(name, ema_decay=0.9)
    tree, optimizer, shardings = make(presets["gemma2"], settings, (2, 4))
    slots = optimizer.initial_slots()
    assert slots.pop("iteration").sharding.is_fully_replicated
    for slot, array in slots.items():
        kind, path = slot.split("/", 1)
        if kind not in ("row", "column"):
            assert array.sharding == shardings[path]
            assert array.shape == tree[path].shape
    averages = {slot for slot in slots if slot.startswith("average/")}
    assert averages == {f"average/{path}" for path in tree}


def test_factors_of_adafactor_lie_as_the_dims_that_they_keep(presets):
    _, optimizer, shardings = make(presets["gemma2"], config("adafactor"), (2, 4))
    slots = optimizer.initial_slots()
    query = "decoder_blocks/attention/query/kernel"  # (layers, heads, hidden, head dim)
    assert tuple(shardings[query].spec) == (None, "model", "batch", None)
    found = {k: slots[f"{k}/{query}"] for k in ("row", "column")}
    assert found["row"].shape == (2, 4, 48)
    assert tuple(found["row"].sharding.spec) == (None, "model", "batch")
    assert found["column"].shape == (2, 4, 16)
    assert tuple(found["column"].sharding.spec) == (None, "model", None)
    embedding = "token_embedding/embeddings"  # (vocabulary, hidden)
    assert tuple(shardings[embedding].spec) == ("model", "batch")
    assert tuple(slots[f"row/{embedding}"].sharding.spec) == ("model",)
    assert tuple(slots[f"column/{embedding}"].sharding.spec) == ("batch",)


def test_adafactor_keeps_rows_and_columns_alone(presets):
    tree, optimizer, _ = make(presets["gemma2"], config("adafactor"))
    sizes = {name: np.prod(s.shape) for name, s in optimizer.shapes().items()}
    weights = sum(np.prod(v.shape) for v in tree.values())
    assert sum(sizes.values()) < 0.05 * weights
    whole = {n.split("/", 1)[1] for n in sizes if n.startswith("velocity/")}
    assert whole == {path for path in tree if path.endswith("/scale")}


def test_muon_tells_which_arrays_it_really_updates(presets):
    lora = {"rank": 4, "targets": ["query", "value"]}
    _, optimizer, _ = make(presets["gemma2"], config("muon"), **lora)
    stacks = ("decoder_blocks", "decoder_blocks_rest")
    assert optimizer.rules() == {
        "muon": [  # A has three dims: heads, hidden, rank
            f"{stack}/attention/{target}/lora_kernel_b"
            for stack in stacks
            for target in ("query", "value")
        ],
        "adamw": [
            f"{stack}/attention/{target}/lora_kernel_a"
            for stack in stacks
            for target in ("query", "value")
        ],
    }
    tree, optimizer, _ = make(presets["gemma2"], config("adamw"))
    assert optimizer.rules() == {"adamw": list(tree)}


def test_muon_leaves_the_embedding_to_adamw(presets):
    _, optimizer, _ = make(presets["gemma2"], config("muon"))
    rules = optimizer.rules()
    assert {path.split("/")[1] for path in rules["muon"]} == {
        "ffw_gating",
        "ffw_gating_2",
        "ffw_linear",
    }
    assert "token_embedding/embeddings" in rules["adamw"]
