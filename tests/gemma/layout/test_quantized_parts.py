"""Integers and scales on meshes: one rule each, split as far as their dims allow."""

import math
import re

import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from gemma.config import GemmaConfig
from gemma.layout import RULES, gemma_layout_map, table
from gemma.presets import BUILT_IN

AXES = ("batch", "model")
MESHES = [(1, 8), (2, 4), (4, 8), (16, 16)]


def parts_of(config, quantize):
    whole = config.parameter_shapes()
    rows = table(config, (1, 1), dtype="bfloat16", quantize=quantize).rows
    return {row.path: row for row in rows if row.path not in whole}


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_every_part_matches_one_rule_by_either_way_of_matching(quantize):
    for path in parts_of(BUILT_IN["gemma3_270m"].config, quantize):
        searched = [rule for rule in RULES if re.search(rule.pattern, path)]
        whole = [rule for rule in RULES if re.fullmatch(rule.pattern, path)]
        assert len(whole) == 1 and searched == whole, path


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("preset", ["gemma2_2b_en", "gemma2_27b_en", "gemma3_4b_text"])
def test_every_split_divides_its_dim(preset, quantize, device_mesh):
    config = BUILT_IN[preset].config
    parts = parts_of(config, quantize)
    assert len(parts) == 2 * (7 * config.num_layers + 1)
    for mesh in MESHES:
        layout_map = gemma_layout_map(device_mesh(mesh), config=config)
        for row in parts.values():
            spec = PartitionSpec(*layout_map[row.path].axes)
            part = NamedSharding(AbstractMesh(mesh, AXES), spec).shard_shape(row.shape)
            split = math.prod(row.shape) // math.prod(part)
            is_values = not row.path.endswith("_scale")
            if is_values and row.bytes > 1_000_000:
                assert split == math.prod(mesh), (row.path, mesh)


def test_the_table_lists_what_a_quantized_model_weighs():
    config = BUILT_IN["gemma2_9b_en"].config
    weights = {
        quantize: table(config, (1, 8), dtype="bfloat16", quantize=quantize).bytes
        for quantize in (None, "int8", "int4")
    }
    # a bfloat16 scale for each 32 weights; norms stay bfloat16
    assert weights["int8"] / weights[None] == pytest.approx(8.5 / 16, rel=1e-3)
    assert weights["int4"] / weights[None] == pytest.approx(4.5 / 16, rel=1e-3)


def test_odd_dims_keep_their_float_rules(device_mesh):
    config = GemmaConfig(
        vocabulary_size=64,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=33,
        intermediate_dim=64,
        head_dim=8,
    )
    layout_map = gemma_layout_map(device_mesh((2, 4)), config=config)
    assert layout_map["decoder_block_0/ffw_gating/kernel"].axes == (None, "model")
