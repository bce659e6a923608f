"""KerasHub loads what we write and computes its golden outputs from it."""

import numpy as np
import pytest

from gemma.adapters import factor_shapes, read_lora, write_lora
from gemma.lora import PROJECTIONS
from gemma.presets import open_preset, write_preset
from tests.gemma.presets.rewriting import GOLDEN, rewrite

pytestmark = pytest.mark.peers

NAMES = ["gemma", "gemma2", "gemma3"]
SAME = 1e-5  # float32 on a CPU, the same code on the same weights


def hidden_of(backbone, golden):
    inputs = {key: golden[key] for key in ("token_ids", "padding_mask")}
    return np.asarray(backbone(inputs))


def valid(values, golden):
    """Leave out what stands at padding: it is arbitrary."""
    return values[golden["padding_mask"].astype(bool)]


def check_adapted(keras_hub, path, golden):
    """Check that KerasHub computes the golden outputs of an adapter beside its base."""
    backbone = keras_hub.models.Backbone.from_preset(str(path.parent))
    backbone.load_lora_weights(str(path))
    np.testing.assert_allclose(
        valid(hidden_of(backbone, golden), golden),
        valid(golden["hidden_lora"], golden),
        atol=SAME,
        rtol=SAME,
    )


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def golden(name):
    return np.load(GOLDEN / name / "golden.npz")


@pytest.mark.parametrize("max_shard_bytes", [1 << 30, 400_000])
def test_keras_hub_computes_the_golden_outputs(
    keras_hub, name, golden, tmp_path, max_shard_bytes
):
    rewrite(name, tmp_path, max_shard_bytes=max_shard_bytes)
    backbone = keras_hub.models.Backbone.from_preset(str(tmp_path))
    hidden = hidden_of(backbone, golden)
    np.testing.assert_allclose(
        valid(hidden, golden), valid(golden["hidden"], golden), atol=SAME, rtol=SAME
    )
    logits = np.asarray(backbone.token_embedding(hidden, reverse=True))
    np.testing.assert_allclose(
        valid(logits, golden), valid(golden["logits"], golden), atol=SAME, rtol=SAME
    )


def test_keras_hub_builds_the_task_with_its_tokenizer(
    keras_hub, name, golden, tmp_path
):
    rewrite(name, tmp_path)
    task = keras_hub.models.CausalLM.from_preset(str(tmp_path))
    length = open_preset(str(GOLDEN / name)).sequence_length
    assert task.preprocessor.sequence_length == length
    assert task.generate("Define the", max_length=12).startswith("Define the")


def test_keras_hub_loads_bfloat16_bit_for_bit(keras_hub, tmp_path):
    config = rewrite("gemma2", tmp_path, dtype="bfloat16").config
    backbone = keras_hub.models.Backbone.from_preset(str(tmp_path), dtype="bfloat16")
    variables = {v.path: np.asarray(v.value) for v in backbone.variables}
    with open_preset(str(tmp_path)).weights() as weights:
        for path in config.parameter_shapes():
            ours = weights.read(path)
            assert variables[path].dtype == ours.dtype
            np.testing.assert_array_equal(variables[path].view("u2"), ours.view("u2"))


def test_keras_hub_computes_the_golden_outputs_with_our_copy_of_its_adapter(
    keras_hub, name, golden, tmp_path
):
    config = rewrite(name, tmp_path).config
    adapter = read_lora(GOLDEN / name / "adapter.lora.h5", config)
    path = tmp_path / "adapter.lora.h5"
    write_lora(
        path,
        adapter.arrays,
        config=config,
        rank=3,
        alpha=3.0,
        targets=adapter.targets,
    )
    check_adapted(keras_hub, path, golden)


def test_keras_hub_applies_an_alpha_that_is_not_the_rank(
    keras_hub, name, golden, tmp_path
):
    """B divided by alpha / rank, with that alpha, is the golden adapter again."""
    config = rewrite(name, tmp_path).config
    adapter = read_lora(GOLDEN / name / "adapter.lora.h5", config)
    arrays = {
        key: values / np.float32(2.5) if key.endswith("_b") else values
        for key, values in adapter.arrays.items()
    }
    path = tmp_path / "adapter.lora.h5"
    write_lora(path, arrays, config=config, rank=3, alpha=7.5, targets=adapter.targets)
    check_adapted(keras_hub, path, golden)


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_keras_hub_computes_what_merged_kernels_give(
    keras_hub, name, golden, tmp_path, factorisation
):
    config = rewrite(name, tmp_path / "base").config
    settings = {
        "rank": 2,
        "targets": ("query", "value"),
        "factorisation": factorisation,
    }
    rng = np.random.default_rng(0)
    arrays = {
        key: (0.2 * rng.normal(size=shape)).astype(np.float32)
        for key, shape in factor_shapes(config, **settings).items()
    }
    path = tmp_path / "adapter.lora.h5"
    write_lora(path, arrays, config=config, alpha=5.0, **settings)
    form = "ndr,rh->ndh" if factorisation == "keras" else "dr,rnh->ndh"

    def merged(variable):
        layer, kernel = variable.rsplit("/", 1)[0], base.read(variable)
        if f"{layer}/lora_kernel_a" not in arrays:
            return kernel
        a, b = arrays[f"{layer}/lora_kernel_a"], arrays[f"{layer}/lora_kernel_b"]
        return kernel + np.float32(2.5) * np.einsum(form, a, b)

    with open_preset(str(tmp_path / "base")).weights() as base:
        write_preset(
            tmp_path / "merged",
            config=config,
            dtype="float32",
            arrays=merged,
            vocabulary=None,
        )
    from_preset = keras_hub.models.Backbone.from_preset
    adapted = from_preset(str(tmp_path / "base"))
    adapted.load_lora_weights(str(path))
    hidden = valid(hidden_of(adapted, golden), golden)
    expected = hidden_of(from_preset(str(tmp_path / "merged")), golden)
    np.testing.assert_allclose(hidden, valid(expected, golden), atol=SAME, rtol=SAME)
    assert np.abs(hidden - valid(golden["hidden"], golden)).max() > 0.01


def test_keras_hub_loads_adapters_on_every_projection(keras_hub, tmp_path):
    """Other targets than its own have to be enabled first, as with its own files."""
    config = rewrite("gemma2", tmp_path).config
    settings = {"rank": 2, "targets": PROJECTIONS, "factorisation": "keras"}
    rng = np.random.default_rng(0)
    arrays = {
        key: rng.normal(size=shape).astype(np.float32)
        for key, shape in factor_shapes(config, **settings).items()
    }
    path = tmp_path / "adapter.lora.h5"
    write_lora(path, arrays, config=config, alpha=2.0, **settings)
    backbone = keras_hub.models.Backbone.from_preset(str(tmp_path))
    backbone.enable_lora(2, target_layer_names=list(PROJECTIONS))
    backbone.load_lora_weights(str(path))
    loaded = {v.path: np.asarray(v.value) for v in backbone.variables}
    for key, values in arrays.items():
        np.testing.assert_array_equal(loaded[key], values)
