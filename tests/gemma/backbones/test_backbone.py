"""The backbone as a Keras model: extended, fitted, described, refused."""

import keras
import numpy as np
import pytest

from gemma import GemmaBackbone

GOLDEN = "tests/golden/keras_hub/gemma2"


@pytest.fixture(scope="module")
def directory(repository):
    return str(repository / GOLDEN)


@pytest.fixture(scope="module")
def pretrained(directory):
    return GemmaBackbone.from_preset(directory)


def test_it_is_a_functional_model(pretrained):
    assert set(pretrained.input) == {"token_ids", "padding_mask"}
    assert tuple(pretrained.output.shape) == (None, None, 48)
    assert pretrained.get_layer("decoder_block_1").kind == "global"
    assert pretrained.token_embedding is pretrained.get_layer("token_embedding")


def test_it_can_be_extended_with_an_additional_output(pretrained, batch):
    hidden = pretrained.output
    pooled = keras.layers.GlobalAveragePooling1D()(hidden)
    extended = keras.Model(pretrained.input, {"hidden": hidden, "pooled": pooled})
    outputs = extended(batch)
    np.testing.assert_allclose(
        np.asarray(outputs["pooled"]),
        np.asarray(pretrained(batch)).mean(1),
        atol=1e-5,
    )


def test_fit_trains_a_model_with_the_tied_head(directory, batch):
    backbone = GemmaBackbone.from_preset(directory)
    logits = backbone.token_embedding(backbone.output, reverse=True)
    model = keras.Model(backbone.input, logits)
    model.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    labels = np.roll(batch["token_ids"], -1, axis=1)
    before = [np.asarray(v.value) for v in backbone.weights]
    losses = model.fit(batch, labels, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    for variable, old in zip(backbone.weights, before, strict=True):
        assert np.abs(np.asarray(variable.value) - old).max() > 0, variable.path


def test_fit_with_adapters_trains_nothing_else(directory, batch):
    backbone = GemmaBackbone.from_preset(directory)
    backbone.enable_lora(rank=2)
    model = keras.Model(
        backbone.input, backbone.token_embedding(backbone.output, reverse=True)
    )
    model.compile(
        keras.optimizers.Adam(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    before = {v.path: np.asarray(v.value) for v in backbone.weights}
    model.fit(batch, batch["token_ids"], epochs=2, verbose=0)
    after = {v.path: np.asarray(v.value) for v in backbone.weights}
    moved = {p for p in before if not np.array_equal(before[p], after[p])}
    assert moved == {p for p in before if "lora_kernel" in p}
    assert len(moved) == 3 * 2 * 2


def test_its_configuration_builds_it_again(arguments):
    config = GemmaBackbone(**arguments(), dtype="bfloat16", trainable=False)
    again = GemmaBackbone.from_config(config.get_config())
    assert again.get_config() == config.get_config()
    assert again.dtype_policy.name == "bfloat16"
    assert again.trainable is False
    assert again.gemma_config == config.gemma_config


def test_its_configuration_has_the_constructors_names(pretrained, arguments):
    config = pretrained.get_config()
    assert config["num_layers"] == 3
    assert config["layer_norm_epsilon"] == 1e-6
    assert set(arguments()) <= set(config)
    assert {"name", "trainable", "dtype", "dropout"} <= set(config)


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_kerass_own_file_brings_it_back(build, batch, family, tmp_path):
    backbone = build(family, 3)
    backbone.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(backbone)
    np.testing.assert_array_equal(np.asarray(again(batch)), np.asarray(backbone(batch)))


def test_mixed_precision_keeps_weights_in_float32(arguments, batch):
    backbone = GemmaBackbone(**arguments(num_layers=1), dtype="mixed_bfloat16")
    assert {v.dtype for v in backbone.weights} == {"float32"}
    assert backbone(batch).dtype == "bfloat16"


def test_default_targets_are_query_and_value(arguments):
    backbone = GemmaBackbone(**arguments(num_layers=2))
    backbone.enable_lora(rank=4)
    trainable = [v.path.split("/", 1)[1] for v in backbone.trainable_variables]
    assert trainable == 2 * [
        f"attention/{name}/lora_kernel_{factor}"
        for name in ("query", "value")
        for factor in "ab"
    ]


def test_dropout_acts_in_training_only(arguments, batch):
    backbone = GemmaBackbone(**arguments(num_layers=1, dropout=0.5))
    np.testing.assert_array_equal(backbone(batch), backbone(batch))
    trained = [np.asarray(backbone(batch, training=True)) for _ in range(2)]
    assert np.abs(trained[0] - trained[1]).max() > 0.01


def test_weights_of_other_dimensions_are_refused(directory):
    with pytest.raises(ValueError, match=r"received shape \(2048, 48\)") as error:
        GemmaBackbone.from_preset(directory, vocabulary_size=96)
    assert "token_embedding/embeddings" in str(error.value)
    with pytest.raises(ValueError, match="none for decoder_block_3.*; leave out the"):
        GemmaBackbone.from_preset(directory, num_layers=4)


def test_an_impossible_dimension_is_named(arguments):
    with pytest.raises(ValueError, match="num_layers must be a positive integer"):
        GemmaBackbone(**arguments(num_layers=0))


def test_adapters_cannot_be_added_twice(arguments):
    backbone = GemmaBackbone(**arguments(num_layers=1))
    backbone.enable_lora(rank=4)
    with pytest.raises(ValueError, match="has adapters of rank 4 already; build a new"):
        backbone.enable_lora(rank=4)
