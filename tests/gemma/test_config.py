"""The dimensions: what follows from them and which are impossible."""

import pytest

from gemma.config import GemmaConfig
from gemma.presets import BUILT_IN


@pytest.fixture
def config(arguments):
    def choose(**changes):
        return GemmaConfig(**arguments(**changes))

    return choose


def test_local_layers_come_first(config):
    kinds = [config(num_layers=3).attention_kind(layer) for layer in range(3)]
    assert kinds == ["local", "global", "local"]
    assert config(use_sliding_window_attention=False).attention_kind(0) == "global"


def test_queries_of_27b_are_scaled_by_the_hidden_dim_per_head():
    config = BUILT_IN["gemma2_27b_en"].config
    assert config.query_scale == 1 / 144**0.5  # 4608 / 32, not head_dim 128
    assert BUILT_IN["gemma2_9b_en"].config.query_scale == 1 / 256**0.5


def test_parameters_of_a_small_model(config):
    # KerasHub's own count for V 20, L 2, heads 4 over 1, D 16, H 4, ffw 16
    small = config(
        family="gemma",
        vocabulary_size=20,
        num_query_heads=4,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
        head_dim=4,
    )
    assert small.parameter_count == 3216


def test_a_mapping_may_hold_more(config):
    known = config()
    assert GemmaConfig.from_mapping(known.to_mapping() | {"name": "x"}) == known


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers must be a positive integer, received 0"),
        ({"head_dim": True}, "head_dim must be a positive integer, received True"),
        ({"hidden_dim": 8.0}, "hidden_dim must be a positive integer, received 8.0"),
        (
            {"num_key_value_heads": 3},
            r"num_query_heads \(4\) must be a multiple of num_key_value_heads \(3\)",
        ),
        ({"intermediate_dim": 97}, "width and must be even, received 97"),
        ({"head_dim": 7}, "head_dim must be even for rotary positions, received 7"),
        ({"final_logit_soft_cap": 0.0}, "soft_cap must be positive and finite"),
        ({"attention_logit_soft_cap": -3.0}, "positive and finite, received -3.0"),
        ({"query_pre_attn_scalar": float("inf")}, "scalar must be positive and finite"),
        ({"layer_norm_epsilon": -1.0}, "epsilon must be 0 or more and finite"),
        ({"layer_norm_epsilon": float("inf")}, "and finite, received inf"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), received 1.0"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), received -0.1"),
    ],
)
def test_an_impossible_dimension_is_named(config, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("gemma_2b_en", 8192),
        ("gemma2_27b_en", 8192),
        ("gemma3_1b", 32_768),
        ("gemma3_27b_text", 131_072),
    ],
)
def test_positions_are_those_of_the_reports(name, positions):
    assert BUILT_IN[name].config.max_positions == positions
