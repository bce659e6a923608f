"""Gemma 3's text model: what it adds, what it refuses, which class builds what."""

import jax
import numpy as np
import pytest

from gemma import Backbone, Gemma3Backbone, GemmaBackbone
from gemma.config import TEXT_ONLY, Gemma3Config
from gemma.layers.rms_normalization import RMSNormalization
from gemma.presets import BUILT_IN, PresetFileError
from gemma.stacked import Stacked
from gemma.stacked.tree import stack_values

SAME = 1e-5  # float32 on a CPU, sums in another order


@pytest.fixture(scope="module")
def backbone(build):
    """A whole period of six layers and two more."""
    return build("gemma3", 8)


def test_five_local_layers_precede_each_global_one(backbone):
    kinds = [block.kind for block in backbone.blocks]
    assert kinds == 5 * ["local"] + ["global"] + 2 * ["local"]
    assert [block.attention.window for block in backbone.blocks[4:6]] == [4, None]


def test_paths_and_shapes_are_those_of_keras_hub(backbone):
    """Read off KerasHub 0.32.0, one block of a Gemma 3 without images."""
    names = [v.path for v in backbone.weights if v.path.startswith("decoder_block_0/")]
    assert [name.removeprefix("decoder_block_0/") for name in names] == [
        "pre_attention_norm/scale",
        "post_attention_norm/scale",
        "attention/query/kernel",
        "attention/key/kernel",
        "attention/value/kernel",
        "attention/query_norm/scale",
        "attention/key_norm/scale",
        "attention/attention_output/kernel",
        "pre_ffw_norm/scale",
        "post_ffw_norm/scale",
        "ffw_gating/kernel",
        "ffw_gating_2/kernel",
        "ffw_linear/kernel",
    ]
    shapes = {v.path: tuple(v.shape) for v in backbone.weights}
    assert shapes == backbone.gemma_config.parameter_shapes()
    assert list(shapes) == list(backbone.gemma_config.parameter_shapes())
    assert shapes["decoder_block_0/ffw_linear/kernel"] == (96, 32)  # not halved


def test_parameters_of_a_small_model():
    small = Gemma3Backbone(
        vocabulary_size=20,
        image_size=None,
        num_layers=6,
        num_query_heads=4,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
        head_dim=4,
        use_query_key_norm=False,
    )
    by_hand = 20 * 16 + 6 * (16 * 4 * (4 + 1 + 1 + 4) + 3 * 16 * 32 + 2 * 16) + 16
    assert small.count_params() == by_hand


@pytest.mark.parametrize(
    "switch",
    [
        {"use_query_key_norm": False},
        {"global_rope_scaling_factor": 1.0},
        {"local_rope_scaling_factor": 2.0},
        {"sliding_window_size": 5},
        {"use_sliding_window_attention": False},
        {"query_head_dim_normalize": False, "num_query_heads": 2},
        {"query_pre_attn_scalar": 24.0},
        {"layer_norm_epsilon": 0.5},
    ],
    ids=lambda switch: next(iter(switch)),
)
def test_every_switch_changes_the_output(build, batch, switch):
    heads = {"num_query_heads": switch.get("num_query_heads", 4)}
    plain = build("gemma3", 6, **heads)
    changed = build("gemma3", 6, **heads | switch)
    for variable in changed.weights:  # the same weights, but for missing norms
        variable.assign(next(v for v in plain.weights if v.path == variable.path))
    difference = np.abs(np.asarray(plain(batch)) - np.asarray(changed(batch)))
    assert difference.max() > 1e-3


def test_the_stacked_forward_equals_the_keras_model(backbone, batch):
    stacked = Stacked(backbone)
    hidden = jax.jit(stacked.hidden)(stack_values(stacked.tree), **batch)
    np.testing.assert_allclose(hidden, backbone(batch), atol=SAME, rtol=SAME)


def test_every_norm_gets_the_models_epsilon(build):
    backbone = build("gemma3", 1, layer_norm_epsilon=0.25)
    norms = [n for n in backbone._flatten_layers() if isinstance(n, RMSNormalization)]
    assert len(norms) == 6 + 1
    for norm in norms:
        x = np.full((1, 1, norm.scale.shape[0]), 1e-3, "float32")
        gain = 1 + np.asarray(norm.scale.value)
        expected = x * gain / np.sqrt(0.25 + 1e-6)
        np.testing.assert_allclose(np.asarray(norm(x)), expected, rtol=1e-5)


def test_its_configuration_builds_it_again(build):
    backbone = build("gemma3", 1)
    config = backbone.get_config()
    assert TEXT_ONLY.items() <= config.items()
    again = Gemma3Backbone.from_config(config)
    assert again.get_config() == config
    assert again.gemma_config == backbone.gemma_config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vision_encoder", object()),
        ("use_bidirectional_attention", True),
        ("is_embedding_model", True),
        ("pooling_intermediate_dim", 8),
        ("embedding_dim", 8),
    ],
)
def test_a_model_of_something_else_is_refused(arguments, name, value):
    with pytest.raises(ValueError, match=f"{name} must be .* the causal text model"):
        Gemma3Backbone(**arguments("gemma3"), **{name: value})


def test_a_scaling_factor_is_positive(arguments):
    with pytest.raises(ValueError, match="global_rope_scaling_factor must be pos"):
        Gemma3Backbone(**arguments("gemma3", global_rope_scaling_factor=0.0))


def test_presets_are_those_that_the_class_builds():
    assert Gemma3Backbone.presets.keys().isdisjoint(GemmaBackbone.presets)
    assert GemmaBackbone.presets.keys() | Gemma3Backbone.presets.keys() == set(BUILT_IN)
    assert set(Backbone.presets) == set(BUILT_IN)
    configs = [preset.config for preset in Gemma3Backbone.presets.values()]
    assert all(isinstance(config, Gemma3Config) for config in configs)


def test_the_base_class_infers_the_subclass(repository):
    directory = str(repository / "tests/golden/keras_hub/gemma2")
    assert type(Backbone.from_preset(directory)) is GemmaBackbone


def test_a_preset_of_the_other_class_is_refused(repository):
    directory = str(repository / "tests/golden/keras_hub/gemma2")
    with pytest.raises(PresetFileError) as error:
        Gemma3Backbone.from_preset(directory)
    assert "expected a preset of Gemma3Backbone" in str(error.value)
    assert "GemmaBackbone.from_preset" in str(error.value)


def test_a_subclass_of_the_users_is_kept(repository):
    class Mine(GemmaBackbone):
        pass

    directory = str(repository / "tests/golden/keras_hub/gemma2")
    assert type(Mine.from_preset(directory, load_weights=False)) is Mine
