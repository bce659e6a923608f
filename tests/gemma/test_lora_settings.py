"""Settings of adapters: defaults, patterns of targets, impossible values."""

import pytest

from gemma.lora import lora_settings


def test_alpha_is_rank_by_default_and_targets_are_query_and_value():
    settings = lora_settings(8)
    assert (settings.alpha, settings.scale) == (8.0, 1.0)
    assert settings.targets == ("query", "value")
    assert lora_settings(8, alpha=16).scale == 2.0


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["ffw_*"], ("ffw_gating", "ffw_gating_2", "ffw_linear")),
        (["value", "key"], ("key", "value")),
        (["attention_output"], ("attention_output",)),
    ],
)
def test_patterns_select_projections_in_a_blocks_order(patterns, expected):
    assert lora_settings(2, targets=patterns).targets == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, received 0"),
        ({"rank": 2, "alpha": 0}, "alpha must be positive and finite, received 0.0"),
        ({"rank": 2, "alpha": float("nan")}, "positive and finite, received nan"),
        ({"rank": 2, "alpha": float("inf")}, "positive and finite, received inf"),
        (
            {"rank": 2, "factorisation": "joint"},
            "factorisation must be 'keras' or 'shared', received 'joint'",
        ),
        ({"rank": 2, "targets": ["q_proj"]}, "one of query, .*; received 'q_proj'"),
        ({"rank": 2, "dropout": 1.0}, r"dropout must lie in \[0, 1\), received 1.0"),
        ({"rank": 2, "targets": []}, "targets must name a projection or more"),
    ],
)
def test_an_impossible_setting_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        lora_settings(**arguments)
