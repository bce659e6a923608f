"""A base in 8 or 4 bits on a mesh: read sharded, run sharded, planned and merged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gemma import Backbone
from gemma.lora import lora_settings
from gemma.presets import open_preset
from tests.trainer.memory_plans import plan_of
from trainer.artifacts.weights import write_full_preset
from trainer.distribution.mesh import build_mesh
from trainer.model.assemble import build_model, initial_arrays
from trainer.model.objective import evaluation_sums, training_loss

SUMS = 1e-5  # float32 sums in another order
LENGTH = 32


@pytest.fixture(scope="module")
def preset():
    return open_preset("gemma2_tiny_en")


def model_of(preset, shape, quantize, lora=None):
    mesh = build_mesh(shape, jax.devices()[: shape[0] * shape[1]])
    return build_model(preset, mesh, dtype="float32", lora=lora, quantize=quantize)


def arrays_of(model):
    return initial_arrays(model, load_weights=True, adapter=None, seed=0)


def batch():
    ids = np.random.default_rng(0).integers(4, 4096, (4, LENGTH)).astype("int32")
    positions = np.tile(np.arange(LENGTH, dtype="int32"), (4, 1))
    return {
        "token_ids": ids,
        "positions": positions,
        "segment_ids": np.zeros_like(ids),
        "labels": np.roll(ids, -1, axis=1),
        "loss_mask": positions < LENGTH - 1,
    }


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_every_mesh_holds_the_same_numbers_and_loses_the_same(preset, quantize):
    lora = lora_settings(4, factorisation="keras")
    alone, spread = (model_of(preset, s, quantize, lora) for s in ((1, 1), (2, 4)))
    whole, parts = arrays_of(alone), arrays_of(spread)
    for path, array in whole.items():
        np.testing.assert_array_equal(array, parts[path], err_msg=path)
    values = f"decoder_blocks/ffw_linear/kernel_{quantize}"
    assert len({str(s.index) for s in parts[values].addressable_shards}) == 8
    losses = [
        training_loss(model, remat="none", chunk_tokens=64)(
            {p: a for p, a in arrays.items() if p in model.trainable},
            {p: a for p, a in arrays.items() if p not in model.trainable},
            batch(),
            None,
        ).plain
        for model, arrays in ((alone, whole), (spread, parts))
    ]
    assert losses[1] == pytest.approx(float(losses[0]), rel=SUMS)


def test_evaluation_and_training_lose_the_same(preset):
    model = model_of(preset, (1, 1), "int4", lora_settings(4))
    arrays = arrays_of(model)
    trained = {p: a for p, a in arrays.items() if p in model.trainable}
    frozen = {p: a for p, a in arrays.items() if p not in model.trainable}
    loss = training_loss(model, remat="block", chunk_tokens=64)
    sums = evaluation_sums(model, chunk_tokens=64, end_of_turn=3)(arrays, batch())
    got = loss(trained, frozen, batch(), None)
    assert sums["loss_sum"] == pytest.approx(float(got.plain), rel=SUMS)


def test_without_adapters_nothing_is_trained(preset):
    model = model_of(preset, (1, 1), "int8")
    assert model.trainable == () and model.quantization == "int8"
    assert not any(variable.is_adapter for variable in model.tree.values())


def test_the_full_preset_is_the_float_base_with_adapters_merged(preset, tmp_path):
    model = model_of(preset, (1, 1), "int4", lora_settings(2, alpha=6.0))
    rng = np.random.default_rng(0)
    arrays = {
        path: jnp.asarray(rng.normal(size=a.shape), "float32")
        if path in model.trainable
        else a
        for path, a in arrays_of(model).items()
    }
    write_full_preset(tmp_path, model, arrays, dtype="float32", sequence_length=64)
    floats = Backbone.from_preset("gemma2_tiny_en", dtype="float32")
    floats.enable_lora(2, alpha=6.0)
    for variable in floats._adapter_variables():
        layer = int(variable.path.split("/")[0].rsplit("_", 1)[1])
        stacked = variable.path.replace(f"decoder_block_{layer}", "decoder_blocks")
        variable.assign(arrays[stacked][layer])
    with open_preset(str(tmp_path)).weights() as written:
        for path in floats.gemma_config.parameter_shapes():
            want = floats.merged_array(path)
            np.testing.assert_allclose(written.read(path), want, rtol=SUMS, atol=1e-7)


def test_the_plan_counts_the_bits_of_the_base():
    def planned(quantize):
        plan = plan_of("gemma2_9b_en", quantize=quantize, microbatch_size=1)
        return plan.estimate((1, 1)).state

    saved = planned(None) - planned("int8"), planned(None) - planned("int4")
    count = 9_241_705_984
    assert saved[0] == pytest.approx(count * (16 - 8.5) / 8, rel=1e-3)
    assert saved[1] == pytest.approx(count * (16 - 4.5) / 8, rel=1e-3)
