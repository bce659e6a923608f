"""The rules: one for each kind of variable, with the axes that would split its dims.

Turns a variable's path into the rule that covers it. It refuses to know dimensions and
meshes: whether a wish divides is decided in `gemma.layout.fitting`.
"""

from __future__ import annotations

import dataclasses
import re

Spec = tuple[str | None, ...]
"""For each leading dim the axis, `model` or `batch`, that splits it."""

_BLOCK = r"(.*/)?decoder_block_\d+/"
_END = "$"  # older Keras searches instead of matching whole paths


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of variable: the paths it covers and its dims' wishes.

    `wish` names the axis that each dim would be split over, as `model` or `batch`;
    dims beyond its end stay whole. What it wishes of `model` holds while the variable
    computes; whatever else splits a dim is storage.
    """

    pattern: str
    wish: Spec


def _weight_rules(path: str, wish: Spec) -> list[Rule]:
    """Return the rules of a weight, whole or quantized: the same wish for each part.

    int8 has the weight's own dims; int4 has half and scales a fraction of one.
    """
    parts = ("(_int8)?", "_int4", "_scale")
    return [Rule(f"{path}{part}{_END}", wish) for part in parts]


def _projection_rules(name: str, kernel: Spec) -> list[Rule]:
    """Return the rules of a kernel, of its quantized parts and of its adapter.

    A follows the kernel's heads (or, when shared by all heads, splits its inputs the
    same way). B follows the kernel's last dim where `model` splits it: that is the
    feed-forward width, which has the same place in either form of adapter.
    """
    path = f"^{_BLOCK}(attention/)?{name}/"
    factor_a: Spec = ("model",) if kernel[0] == "model" else (None,)
    factor_b: Spec = (None, "model") if kernel[-1] == "model" else (None,)
    return [
        *_weight_rules(f"{path}kernel", kernel),
        Rule(f"{path}lora_kernel_a{_END}", factor_a),
        Rule(f"{path}lora_kernel_b{_END}", factor_b),
    ]


RULES: tuple[Rule, ...] = (
    *_weight_rules(r"^(.*/)?token_embedding/embeddings", ("model", "batch")),
    *_projection_rules("query", ("model", "batch", None)),
    *_projection_rules("(key|value)", ("model", "batch", None)),
    *_projection_rules("attention_output", ("model", None, "batch")),
    *_projection_rules("ffw_gating", ("batch", "model")),
    *_projection_rules("ffw_gating_2", ("batch", "model")),
    *_projection_rules("ffw_linear", ("model", "batch")),
    Rule(rf"^(.*/)?(.*_norm|final_normalization)/scale{_END}", (None,)),
)


def matching_rules(path: str) -> list[Rule]:
    """Return the rules that cover a variable's path; a sound table has exactly one."""
    return [rule for rule in RULES if re.search(rule.pattern, path)]


def rule_of(path: str) -> Rule:
    """Return the one rule that covers a variable's path.

    Raises:
        ValueError: No rule covers the path, or several do.
    """
    rules = matching_rules(path)
    if len(rules) != 1:
        raise ValueError(
            f"{path} must match exactly one layout rule, "
            f"matches {[rule.pattern for rule in rules]}"
        )
    return rules[0]
