"""The rules: one for every variable, by either way of matching that Keras has had."""

import re

import pytest

from gemma.config import GemmaConfig
from gemma.layout import RULES, gemma_layout_map, matching_rules, rule_of
from gemma.presets import BUILT_IN
from gemma.quantized.names import part_paths

MESHES = [(1, 8), (2, 4), (8, 1)]

# Source: GemmaBackbone.get_layout_map of KerasHub 0.32.0
KERAS_HUB = {
    "token_embedding/embeddings": ("model", "batch"),
    "decoder_block.*attention.*(query|key|value).kernel": ("model", "batch", None),
    "decoder_block.*attention_output.kernel": ("model", None, "batch"),
    "decoder_block.*ffw_gating.kernel": ("batch", "model"),
    "decoder_block.*ffw_gating_2.kernel": ("batch", "model"),
    "decoder_block.*ffw_linear.kernel": ("model", "batch"),
}


@pytest.mark.parametrize("preset", BUILT_IN)
@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_every_variable_matches_exactly_one_rule(preset, factorisation, adapter_shapes):
    config = BUILT_IN[preset].config
    paths = [*config.parameter_shapes(), *adapter_shapes(config, 8, factorisation)]
    for path in paths:
        for spelling in (path, f"gemma_backbone/{path}"):
            searched = [r for r in RULES if re.search(r.pattern, spelling)]
            whole = [r for r in RULES if re.fullmatch(r.pattern, spelling)]
            assert searched == whole == matching_rules(spelling)
            assert len(whole) == 1, spelling


def test_every_rule_covers_a_variable_of_gemma_3(adapter_shapes):
    config = BUILT_IN["gemma3_270m"].config
    paths = [*config.parameter_shapes(), *adapter_shapes(config, 8, "keras")]
    for quantization in ("int8", "int4"):
        for path in config.parameter_shapes():
            paths.extend(part_paths(path, quantization))
    assert {rule_of(path) for path in paths} == set(RULES)
    norm = rule_of("decoder_block_0/attention/query_norm/scale")
    assert norm == rule_of("final_normalization/scale")


def test_a_path_that_no_rule_covers_is_named():
    with pytest.raises(
        ValueError, match=r"query/bias must match exactly one layout rule, matches \[\]"
    ):
        rule_of("decoder_block_0/attention/query/bias")


@pytest.mark.parametrize("mesh", MESHES, ids=lambda m: f"{m[0]}x{m[1]}")
@pytest.mark.parametrize("preset", BUILT_IN)
def test_specs_are_those_of_keras_hub_where_they_divide(preset, mesh, device_mesh):
    config = BUILT_IN[preset].config
    layout_map = gemma_layout_map(device_mesh(mesh), config=config)
    sizes = dict(zip(("batch", "model"), mesh, strict=True))
    moved = set()
    for path, shape in config.parameter_shapes().items():
        wishes = [w for p, w in KERAS_HUB.items() if re.fullmatch(p, path)]
        wish = wishes[0] if wishes else (None,) * len(shape)
        divides = all(
            axis is None or dim % sizes[axis] == 0
            for dim, axis in zip(shape, wish, strict=True)
        )
        if divides:
            assert layout_map[path].axes == wish, path
        else:
            moved.add(path.split("/")[-2])
    assert moved <= {"query", "key", "value", "attention_output"}


def test_a_lone_key_value_head_is_split_along_its_dims(device_mesh):
    config = BUILT_IN["gemma_2b_en"].config
    layout_map = gemma_layout_map(device_mesh((1, 8)), config=config)
    axes = layout_map["decoder_block_3/attention/key/kernel"].axes
    assert axes == (None, "batch", "model")


def test_without_dimensions_a_map_says_what_it_wishes(device_mesh):
    layout_map = gemma_layout_map(device_mesh())
    assert {p: layout_map[p].axes for p in layout_map} == {
        rule.pattern: rule.wish for rule in RULES
    }


def test_rules_of_adapters_hold_for_either_form_until_it_is_known(device_mesh):
    config = GemmaConfig(
        vocabulary_size=64,
        num_layers=1,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=30,
        intermediate_dim=64,
        head_dim=8,
    )
    axes = {
        path: gemma_layout_map(device_mesh(), config=config)[path].axes
        for path in (
            "decoder_block_0/attention/query/lora_kernel_a",
            "decoder_block_0/attention/value/lora_kernel_a",
            "decoder_block_0/attention/query/lora_kernel_b",
            "decoder_block_0/ffw_gating/lora_kernel_b",
        )
    }
    # 4 heads divide by 4 devices, 30 inputs of a shared A do not; 32 of B do
    assert list(axes.values()) == [(None,), (None,), (None,), (None, "model")]
