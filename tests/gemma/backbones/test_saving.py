"""What is saved comes back: presets, merged adapters, adapter files."""

import json

import numpy as np
import pytest

from gemma import GemmaBackbone

GOLDEN = "tests/golden/keras_hub"
SAME = 1e-5  # float32, sums in another order


@pytest.fixture
def new(build):
    """Build a small model that a test may change; always the same weights."""
    return lambda: build("gemma2", 1, fresh=True)


@pytest.fixture
def saved(new, randomise, tmp_path):
    """Save adapters with the given settings and return their model and file."""

    def save(rank=2, targets=None, **settings):
        backbone = new()
        weights = {v.path: np.asarray(v.value) for v in backbone.weights}
        backbone.enable_lora(rank, targets, **settings)
        randomise(backbone, seed=1)
        for variable in backbone.weights:
            if variable.path in weights:
                variable.assign(weights[variable.path])
        path = str(tmp_path / "adapter.lora.h5")
        backbone.save_lora_weights(path)
        return backbone, path

    return save


def close(one, other, batch):
    np.testing.assert_allclose(
        np.asarray(one(batch)), np.asarray(other(batch)), atol=SAME, rtol=SAME
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_preset_has_the_same_weights(arguments, tmp_path, dtype):
    backbone = GemmaBackbone(**arguments(num_layers=1), dtype=dtype)
    backbone.save_to_preset(str(tmp_path))
    again = GemmaBackbone.from_preset(str(tmp_path))
    assert again.gemma_config == backbone.gemma_config
    for ours, theirs in zip(backbone.weights, again.weights, strict=True):
        assert (ours.path, ours.dtype) == (theirs.path, theirs.dtype)
        np.testing.assert_array_equal(np.asarray(ours.value), np.asarray(theirs.value))


def test_a_saved_preset_keeps_the_vocabulary(repository, tmp_path):
    directory = repository / GOLDEN / "gemma"
    backbone = GemmaBackbone.from_preset(str(directory), load_weights=False)
    backbone.save_to_preset(str(tmp_path))
    name = "assets/tokenizer/vocabulary.spm"
    assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["parameter_count"] == backbone.count_params()


def test_a_saved_preset_has_the_adapters_merged(saved, batch, tmp_path):
    backbone, _ = saved(alpha=3.0, targets=["*"])
    backbone.save_to_preset(str(tmp_path / "merged"))
    close(GemmaBackbone.from_preset(str(tmp_path / "merged")), backbone, batch)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"alpha": 7.0},
        {"factorisation": "shared", "alpha": 3.0},
        {"targets": ["ffw_*", "attention_output"], "alpha": 1.0},
    ],
    ids=["defaults", "alpha", "shared", "targets"],
)
def test_saved_adapters_come_back(saved, new, batch, settings):
    backbone, path = saved(**settings)
    again = new()
    again.load_lora_weights(path)
    assert again.lora == backbone.lora
    close(again, backbone, batch)


def test_adapters_of_another_alpha_compute_the_same(saved, new, batch):
    backbone, path = saved(alpha=7.0)
    again = new()
    again.enable_lora(2, alpha=1.0)
    again.load_lora_weights(path)
    assert again.lora.alpha == 1.0
    close(again, backbone, batch)


def test_without_adapters_there_is_nothing_to_save(build, tmp_path):
    with pytest.raises(ValueError, match="no adapters to save; call enable_lora first"):
        build("gemma2", 1).save_lora_weights(str(tmp_path / "adapter.lora.h5"))


def test_another_rank_is_refused(saved, new):
    _, path = saved(rank=2)
    again = new()
    again.enable_lora(rank=3)
    with pytest.raises(
        ValueError, match="the model's adapters have rank 3, .* has rank 2"
    ):
        again.load_lora_weights(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"target_layer_names": ["query"]},
            r"adapts query \(keras\), .* adapts que",
        ),
        (
            {"factorisation": "shared"},
            r"query, value \(shared\), .* value \(keras\)",
        ),
    ],
)
def test_other_targets_and_forms_are_refused(saved, new, settings, message):
    _, path = saved(rank=2)
    again = new()
    again.enable_lora(rank=2, **settings)
    with pytest.raises(ValueError, match=message):
        again.load_lora_weights(path)


def test_an_adapter_file_that_is_missing_is_named(build, tmp_path):
    path = tmp_path / "adapter.lora.h5"
    with pytest.raises(ValueError, match=f"{path}: expected .*, received no file"):
        build("gemma2", 1).load_lora_weights(str(path))


def test_keras_hubs_name_of_the_targets_is_taken(new):
    backbone = new()
    backbone.enable_lora(2, target_layer_names=["key"])
    assert backbone.lora.targets == ("key",)
    with pytest.raises(ValueError, match="two names of one argument, received both"):
        new().enable_lora(2, ["query"], target_layer_names=["key"])
