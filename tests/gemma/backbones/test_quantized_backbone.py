"""Backbones in 8 and 4 bits: loaded, computed, adapted, merged and saved."""

import jax
import keras
import numpy as np
import pytest

from gemma import Backbone, GemmaBackbone, GemmaCausalLM
from gemma.decoding import Decoder
from gemma.layers.token_embedding import unembed
from gemma.presets import PresetFileError, open_preset
from gemma.stacked import Stacked
from gemma.stacked.tree import stack_values

NAME = "gemma2_tiny_en"
ROUNDING = 1e-5  # the same products in another order of summation
IDS = np.arange(48, dtype="int32").reshape(2, 24) * 37 % 4096
INPUTS = {"token_ids": IDS, "padding_mask": np.ones_like(IDS)}


@pytest.fixture(params=["int8", "int4"])
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def plain():
    return Backbone.from_preset(NAME, dtype="float32")


def load(mode, **settings):
    return Backbone.from_preset(NAME, quantize=mode, **{"dtype": "float32"} | settings)


def logits(backbone):
    return np.asarray(backbone.token_embedding(backbone(INPUTS), reverse=True))


def train_adapters(backbone, seed=0):
    backbone.enable_lora(4, ["query", "ffw_linear"], alpha=8.0)
    rng = np.random.default_rng(seed)
    for variable in backbone._adapter_variables():
        variable.assign(rng.normal(size=variable.shape) * 0.05)


def test_weights_take_a_quarter_and_an_eighth_of_float32(plain):
    bytes_of = {
        mode: sum(v.value.nbytes for v in load(mode).weights)
        for mode in ("int8", "int4")
    }
    whole = sum(v.value.nbytes for v in plain.weights)
    # a bfloat16 scale for 32 weights: 8.5 and 4.5 bits, and norms
    assert bytes_of["int8"] / whole == pytest.approx(8.5 / 32, rel=0.01)
    assert bytes_of["int4"] / whole == pytest.approx(4.5 / 32, rel=0.01)


def test_loading_gives_what_quantizing_in_memory_gives(mode):
    in_memory = GemmaBackbone.from_preset(NAME, dtype="float32")
    in_memory.quantize(mode)
    loaded = load(mode)
    assert [v.path for v in loaded.weights] == [v.path for v in in_memory.weights]
    for ours, want in zip(loaded.weights, in_memory.weights, strict=True):
        np.testing.assert_array_equal(ours.value, want.value)


def test_it_computes_with_what_its_integers_stand_for(mode, plain):
    quantized = load(mode)
    restored = Backbone.from_preset(NAME, dtype="float32")
    table = quantized.token_embedding.quantized.value.astype("float32")
    restored.token_embedding.embeddings.assign(table)
    for ours, block in zip(restored.blocks, quantized.blocks, strict=True):
        for name, projection in block.projections().items():
            ours.projections()[name]._kernel.assign(projection.kernel)
    np.testing.assert_allclose(logits(quantized), logits(restored), atol=1e-3)
    assert np.abs(logits(quantized) - logits(plain)).max() > 0.01


def test_stacked_functions_equal_the_model(mode):
    backbone = load(mode)
    train_adapters(backbone)
    stacked = Stacked(backbone)
    weights = stack_values(stacked.tree)
    hidden = stacked.hidden(weights, IDS)
    np.testing.assert_allclose(hidden, backbone(INPUTS), atol=ROUNDING)
    ours = unembed(
        hidden, stacked.table(weights), soft_cap=stacked.config.final_logit_soft_cap
    )
    np.testing.assert_allclose(ours, logits(backbone), atol=ROUNDING * 10)


def test_it_generates(mode):
    backbone = load(mode)
    stacked = Stacked(backbone)
    weights = stack_values(stacked.tree)
    prompt = [2, 100, 200, 300]
    (answer,) = Decoder(stacked, []).generate(weights, [prompt], max_new_tokens=3)
    for length in range(3):  # greedily, as the model's own logits say
        ids = np.asarray([prompt + answer[:length]], "int32")
        inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
        last = backbone.token_embedding(backbone(inputs), reverse=True)[0, -1]
        assert answer[length] == int(last.argmax())


def test_it_trains_adapters_and_nothing_else(mode):
    backbone = load(mode)
    assert not backbone.trainable_variables
    backbone.enable_lora(4)
    trained = {v.path.rsplit("/", 1)[1] for v in backbone.trainable_variables}
    assert trained == {"lora_kernel_a", "lora_kernel_b"}
    stacked = Stacked(backbone)
    weights = stack_values(stacked.tree)
    adapters = {p: w for p, w in weights.items() if stacked.tree[p].is_adapter}

    def loss(adapters):
        return (stacked.hidden({**weights, **adapters}, IDS) ** 2).mean()

    gradients = jax.grad(loss)(adapters)
    factors = [g for path, g in gradients.items() if path.endswith("lora_kernel_b")]
    assert len(factors) == 2 and all(np.abs(g).max() > 0 for g in factors)


def test_saving_merges_adapters_into_the_float_weights(mode, tmp_path):
    quantized, floats = load(mode), Backbone.from_preset(NAME, dtype="float32")
    for backbone, name in ((quantized, "ours"), (floats, "floats")):
        train_adapters(backbone)
        backbone.save_to_preset(tmp_path / name)
    paths = floats.gemma_config.parameter_shapes()
    ours, want = (open_preset(str(tmp_path / name)) for name in ("ours", "floats"))
    with ours.weights() as ours, want.weights() as want:
        for path in paths:
            np.testing.assert_array_equal(ours.read(path), want.read(path))


def test_adapters_of_a_quantized_base_belong_to_the_float_one(mode, plain, tmp_path):
    quantized = load(mode)
    assert quantized.base_hash() == plain.base_hash()
    train_adapters(quantized)
    path = str(tmp_path / "adapter.lora.h5")
    quantized.save_lora_weights(path)
    floats = Backbone.from_preset(NAME, dtype="float32")
    floats.load_lora_weights(path)
    again = load(mode)
    again.load_lora_weights(path)
    np.testing.assert_array_equal(logits(again), logits(quantized))
    assert floats.lora.rank == 4


def test_adapters_stay_apart_from_a_quantized_kernel(mode):
    backbone = load(mode)
    backbone.enable_lora(2)
    with pytest.raises(ValueError, match="quantized and takes no adapter into its"):
        backbone.merge_lora()


def test_dropout_has_its_random_state(mode):
    backbone = load(mode, dropout=0.1)
    assert all(variable._value is not None for variable in backbone.variables)
    assert np.isfinite(backbone(INPUTS, training=True)).all()


def test_float_weights_of_a_model_quantized_in_memory_are_gone(mode, tmp_path):
    backbone = Backbone.from_preset(NAME)
    backbone.quantize(mode)
    with pytest.raises(ValueError, match="float weights of this quantized model are"):
        backbone.save_to_preset(tmp_path)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_keras_own_files_hold_no_quantized_weights(mode, tmp_path, name):
    for model in (load(mode), GemmaCausalLM.from_preset(NAME, quantize=mode)):
        save = model.save if name.endswith(".keras") else model.save_weights
        with pytest.raises(ValueError, match=f"Keras's own files hold no {mode}"):
            save(str(tmp_path / name))


def test_a_preset_that_changed_is_not_taken_for_what_was_quantized(
    mode, plain, tmp_path
):
    preset = str(tmp_path / "preset")
    plain.save_to_preset(preset)
    quantized = Backbone.from_preset(preset, quantize=mode)
    expected = quantized.base_hash()
    changed = Backbone.from_preset(preset)
    changed.token_embedding.embeddings.assign(-changed.token_embedding.embeddings.value)
    changed.save_to_preset(preset)
    assert quantized.base_hash() == expected
    message = rf"weights that were quantized \({expected}\), received others \(cen"
    with pytest.raises(PresetFileError, match=message):
        quantized.merged_array("token_embedding/embeddings")


def test_only_a_float_model_without_adapters_is_quantized():
    backbone = load("int8")
    with pytest.raises(ValueError, match="can be quantized, received one with int8"):
        backbone.quantize("int4")
    with pytest.raises(ValueError, match="token_embedding is quantized already"):
        backbone.token_embedding.quantize_embeddings("int4")
    query = backbone.blocks[0].attention.query_dense
    with pytest.raises(ValueError, match="query has a quantized kernel already"):
        query.quantize_kernel("int4")
    adapted = Backbone.from_preset(NAME)
    adapted.enable_lora(2)
    with pytest.raises(ValueError, match="received one with adapters; quantize first"):
        adapted.quantize("int4")
    with pytest.raises(ValueError, match="query has an adapter already"):
        adapted.blocks[0].attention.query_dense.quantize_kernel("int4")


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="'int8' or 'int4', received 'int2'"):
        load("int2")
    with pytest.raises(ValueError, match="'int8' or 'int4', received 'float8'"):
        Backbone.from_preset(NAME).quantize("float8")


def test_parts_are_split_under_a_distribution(mode):
    mesh = keras.distribution.DeviceMesh(
        (2, 4), ("batch", "model"), keras.distribution.list_devices()
    )
    distribution = keras.distribution.ModelParallel(
        layout_map=GemmaBackbone.get_layout_map(mesh), batch_dim_name="batch"
    )
    with distribution.scope():
        backbone = load(mode)
    alone = load(mode)
    for ours, want in zip(backbone.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(ours.value, want.value)
    values = backbone.blocks[0].gating_ffw.quantized.values.value
    assert len({str(shard.index) for shard in values.addressable_shards}) == 8


def test_a_causal_lm_answers_and_saves_on_quantized_weights(mode, tmp_path):
    model = GemmaCausalLM.from_preset(NAME, quantize=mode)
    assert model.backbone.quantization == mode
    text = model.generate("Define the noun", max_length=16)
    assert text.startswith("Define the noun") and len(text) > len("Define the noun")
    model.save_to_preset(tmp_path)
    with open_preset(str(tmp_path)).weights() as ours, open_preset(NAME).weights() as w:
        for path in model.backbone.gemma_config.parameter_shapes():
            np.testing.assert_array_equal(ours.read(path), w.read(path))


def test_random_weights_are_not_quantized():
    with pytest.raises(ValueError, match="needs weights, received load_weights=False"):
        Backbone.from_preset(NAME, load_weights=False, quantize="int4")
