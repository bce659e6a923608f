"""Presets and adapters of KerasHub give KerasHub's numbers."""

import json

import numpy as np
import pytest

from gemma import Backbone

SAME = 1e-5  # float32 on a CPU, sums in another order


@pytest.fixture(scope="module")
def backbone(keras_hub_golden):
    return Backbone.from_preset(str(keras_hub_golden[0]))


@pytest.fixture(scope="module")
def adapted(keras_hub_golden):
    backbone = Backbone.from_preset(str(keras_hub_golden[0]))
    backbone.load_lora_weights(str(keras_hub_golden[0] / "adapter.lora.h5"))
    return backbone


def outputs(backbone, golden):
    hidden = backbone({k: golden[k] for k in ("token_ids", "padding_mask")})
    return hidden, backbone.token_embedding(hidden, reverse=True)


def assert_same(values, expected, golden):
    """Compare what stands at tokens; at padding it is arbitrary."""
    valid = golden["padding_mask"].astype(bool)
    np.testing.assert_allclose(
        np.asarray(values)[valid], expected[valid], atol=SAME, rtol=SAME
    )


def test_hidden_states_and_logits(backbone, keras_hub_golden):
    golden = keras_hub_golden[1]
    hidden, logits = outputs(backbone, golden)
    assert_same(hidden, golden["hidden"], golden)
    assert_same(logits, golden["logits"], golden)


def test_hidden_states_and_logits_with_the_adapter(adapted, keras_hub_golden):
    golden = keras_hub_golden[1]
    hidden, logits = outputs(adapted, golden)
    assert_same(hidden, golden["hidden_lora"], golden)
    assert_same(logits, golden["logits_lora"], golden)


def test_variables_have_its_paths_shapes_and_order(adapted, keras_hub_golden):
    expected = json.loads((keras_hub_golden[0] / "golden.json").read_text())
    found = [[v.path, list(v.shape), v.dtype] for v in adapted.variables]
    assert found == expected["variables"]


def test_the_base_class_finds_the_subclass(keras_hub_golden, family):
    backbone = Backbone.from_preset(str(keras_hub_golden[0]), load_weights=False)
    expected = "Gemma3Backbone" if family == "gemma3" else "GemmaBackbone"
    assert type(backbone).__name__ == expected


def test_the_merged_adapter_gives_the_same_numbers(adapted, keras_hub_golden, tmp_path):
    adapted.save_to_preset(str(tmp_path / "merged"))
    merged = Backbone.from_preset(str(tmp_path / "merged"))
    golden = keras_hub_golden[1]
    assert_same(outputs(merged, golden)[1], golden["logits_lora"], golden)
