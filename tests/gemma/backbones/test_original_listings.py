"""The listings of the original's documentation, run as written on eight devices."""

import re

import keras
import numpy as np
import pytest

import gemma as keras_hub_models
from gemma import GemmaBackbone, GemmaCausalLM
from gemma.abstract import build_abstract
from gemma.presets import BUILT_IN

GOLDEN = "tests/golden/keras_hub"


@pytest.fixture(autouse=True)
def inside_the_repository(repository, monkeypatch):
    monkeypatch.chdir(repository)


def printed_specs(gemma_model, capsys):
    """Run the original's last listing and return what it printed, line by line."""
    embedding_layer = gemma_model.backbone.get_layer("token_embedding")
    decoder_block_1 = gemma_model.backbone.get_layer("decoder_block_1")
    capsys.readouterr()
    for variable in embedding_layer.weights + decoder_block_1.weights:
        print(
            f"{variable.path:<58} {str(variable.shape):<16} "
            f"{str(variable.value.sharding.spec)}"
        )
    lines = capsys.readouterr().out.splitlines()
    # JAX before 0.8 prints PartitionSpec(...), later ones P(...)
    return {line.split()[0]: re.search(r" P\w*(\(.*\))$", line)[1] for line in lines}


def test_layout_map_of_a_model_under_its_scope(capsys):
    # Feel free to change the mesh shape to balance data and model parallelism
    mesh = keras.distribution.DeviceMesh(
        shape=(1, 8),
        axis_names=("batch", "model"),
        devices=keras.distribution.list_devices(),
    )
    layout_map = GemmaBackbone.get_layout_map(mesh, model_parallel_dim_name="model")

    distribution = keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name="batch"
    )

    with distribution.scope():
        gemma_model = GemmaCausalLM.from_preset(f"{GOLDEN}/gemma2")

    # 4 query and 2 key/value heads on 8 devices: `model` moves to the head's dims
    assert printed_specs(gemma_model, capsys) == {
        "token_embedding/embeddings": "('model', 'batch')",
        "decoder_block_1/pre_attention_norm/scale": "(None,)",
        "decoder_block_1/post_attention_norm/scale": "(None,)",
        "decoder_block_1/attention/query/kernel": "(None, 'batch', 'model')",
        "decoder_block_1/attention/key/kernel": "(None, 'batch', 'model')",
        "decoder_block_1/attention/value/kernel": "(None, 'batch', 'model')",
        "decoder_block_1/attention/attention_output/kernel": "(None, 'model', 'batch')",
        "decoder_block_1/pre_ffw_norm/scale": "(None,)",
        "decoder_block_1/post_ffw_norm/scale": "(None,)",
        "decoder_block_1/ffw_gating/kernel": "('batch', 'model')",
        "decoder_block_1/ffw_gating_2/kernel": "('batch', 'model')",
        "decoder_block_1/ffw_linear/kernel": "('model', 'batch')",
    }
    golden = np.load(f"{GOLDEN}/gemma2/golden.npz")
    logits = gemma_model({k: golden[k] for k in ("token_ids", "padding_mask")})
    valid = golden["padding_mask"].astype(bool)
    np.testing.assert_allclose(
        np.asarray(logits)[valid], golden["logits"][valid], atol=1e-5, rtol=1e-5
    )


def test_a_lone_key_value_head_on_eight_devices(capsys):
    """The shape of `gemma_2b_en` on 1x8, where KerasHub fails: 8 heads over 1."""
    mesh = keras.distribution.DeviceMesh(
        shape=(1, 8),
        axis_names=("batch", "model"),
        devices=keras.distribution.list_devices(),
    )
    layout_map = GemmaBackbone.get_layout_map(mesh, model_parallel_dim_name="model")
    distribution = keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name="batch"
    )
    with distribution.scope():
        backbone = GemmaBackbone(
            vocabulary_size=64,
            num_layers=2,
            num_query_heads=8,
            num_key_value_heads=1,
            hidden_dim=16,
            intermediate_dim=64,
            head_dim=8,
        )
        gemma_model = GemmaCausalLM(backbone)

    specs = printed_specs(gemma_model, capsys)
    assert specs["decoder_block_1/attention/query/kernel"] == "('model', 'batch', None)"
    assert specs["decoder_block_1/attention/key/kernel"] == "(None, 'batch', 'model')"
    assert specs["decoder_block_1/attention/value/kernel"] == "(None, 'batch', 'model')"
    hidden = backbone(
        {"token_ids": np.array([[2, 5]]), "padding_mask": np.ones((1, 2))}
    )
    assert np.isfinite(np.asarray(hidden)).all()


NORMS = {"pre_attention_norm/scale": (2048,), "pre_ffw_norm/scale": (2048,)}
GEMMA_2B_PARTS = NORMS | {
    "attention/query/kernel": (1, 2048, 256),
    "attention/key/kernel": (1, 2048, 32),
    "attention/value/kernel": (1, 2048, 32),
    "attention/attention_output/kernel": (1, 256, 2048),
    "ffw_gating/kernel": (2048, 2048),
    "ffw_gating_2/kernel": (2048, 2048),
    "ffw_linear/kernel": (2048, 2048),
}
GEMMA2_2B_PARTS = {
    "pre_attention_norm/scale": (2304,),
    "post_attention_norm/scale": (2304,),
    "attention/query/kernel": (1, 2304, 256),
    "attention/key/kernel": (4, 2304, 32),
    "attention/value/kernel": (4, 2304, 32),
    "attention/attention_output/kernel": (1, 256, 2304),
    "pre_ffw_norm/scale": (2304,),
    "post_ffw_norm/scale": (2304,),
    "ffw_gating/kernel": (2304, 1152),
    "ffw_gating_2/kernel": (2304, 1152),
    "ffw_linear/kernel": (1152, 2304),
}


@pytest.mark.parametrize(
    ("preset", "embedding", "block"),
    [
        ("gemma_2b_en", (32_000, 2048), GEMMA_2B_PARTS),
        ("gemma2_2b_en", (32_000, 2304), GEMMA2_2B_PARTS),
    ],
)
def test_layout_map_of_the_published_sizes_without_arrays(preset, embedding, block):
    """The original's listing on 1x8 at full size; KerasHub fails for both presets."""
    mesh = keras.distribution.DeviceMesh(
        shape=(1, 8),
        axis_names=("batch", "model"),
        devices=keras.distribution.list_devices(),
    )
    layout_map = GemmaBackbone.get_layout_map(mesh, model_parallel_dim_name="model")
    distribution = keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name="batch"
    )
    arguments = BUILT_IN[preset].config.to_mapping()
    with distribution.scope():
        gemma_model = build_abstract(lambda: GemmaBackbone(**arguments))

    embedding_layer = gemma_model.get_layer("token_embedding")
    decoder_block_1 = gemma_model.get_layer("decoder_block_1")
    parts = {
        variable.path: distribution.get_variable_layout(
            variable
        ).backend_layout.shard_shape(tuple(variable.shape))
        for variable in embedding_layer.weights + decoder_block_1.weights
    }
    assert parts == {
        "token_embedding/embeddings": embedding,
        **{f"decoder_block_1/{path}": part for path, part in block.items()},
    }


def test_layout_of_adapters_follows_their_kernels(build):
    mesh = keras.distribution.DeviceMesh(
        (2, 4), ("batch", "model"), keras.distribution.list_devices()
    )
    distribution = keras.distribution.ModelParallel(
        layout_map=GemmaBackbone.get_layout_map(mesh), batch_dim_name="batch"
    )
    with distribution.scope():
        backbone = build(num_layers=1, fresh=True)
        backbone.enable_lora(4, ["query", "value", "ffw_linear"])
    spec = {v.path: tuple(v.value.sharding.spec) for v in backbone.weights}
    assert spec["decoder_block_0/attention/query/lora_kernel_a"] == ("model",)
    assert spec["decoder_block_0/attention/value/lora_kernel_a"] == (None,)  # 2 heads
    assert spec["decoder_block_0/ffw_linear/lora_kernel_a"] == ("model",)
    assert spec["decoder_block_0/attention/query/lora_kernel_b"] == (None,)


def test_pretrained_gemma_decoder():
    input_data = {
        "token_ids": np.ones(shape=(1, 12), dtype="int32"),
        "padding_mask": np.array([[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]),
    }

    # Pretrained Gemma decoder.
    model = keras_hub_models.GemmaBackbone.from_preset(f"{GOLDEN}/gemma")
    assert model(input_data).shape == (1, 12, 48)

    # Randomly initialized Gemma decoder with custom config (there 50257 and 12).
    model = keras_hub_models.GemmaBackbone(
        vocabulary_size=500,
        num_layers=2,
        num_query_heads=12,
        num_key_value_heads=1,
        hidden_dim=768,
        intermediate_dim=3072,
        head_dim=64,
    )
    assert model(input_data).shape == (1, 12, 768)


def test_a_backbone_at_bfloat16_that_is_not_trainable():
    backbone = keras_hub_models.Backbone.from_preset(
        f"{GOLDEN}/gemma2",
        dtype="bfloat16",
        trainable=False,
    )
    assert {v.dtype for v in backbone.variables} == {"bfloat16"}
    assert backbone.trainable_variables == []
    hidden = backbone(
        {"token_ids": np.array([[2, 9]]), "padding_mask": np.ones((1, 2))}
    )
    assert hidden.dtype == "bfloat16"
    logits = backbone.token_embedding(hidden, reverse=True)
    assert logits.dtype == "float32"


def test_a_config_with_random_weights():
    model = keras_hub_models.Backbone.from_preset(
        f"{GOLDEN}/gemma2",
        load_weights=False,
    )
    pretrained = keras_hub_models.Backbone.from_preset(f"{GOLDEN}/gemma2")
    kernel, loaded = (
        np.asarray(m.get_layer("decoder_block_1").weights[2].value)
        for m in (model, pretrained)
    )
    assert kernel.shape == loaded.shape
    assert abs(kernel.std() - 0.02) < 0.002
    assert not np.allclose(kernel, loaded)


def test_built_in_presets_are_listed_by_name():
    names = GemmaBackbone.presets.keys()
    assert len(names) == 21
    assert {"gemma_2b_en", "gemma2_27b_en", "shieldgemma_9b_en"} < names
