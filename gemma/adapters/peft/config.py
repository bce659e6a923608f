"""PEFT's `adapter_config.json`: what it says that we can compute, and nothing else.

Turns the file into rank and scale of each module, and settings into the file. Which
modules have adapters is told by the tensors: `target_modules` is not evaluated, and no
pattern of a stranger is run as a regular expression. Everything that would change the
numbers in a way we have no place for is refused by its name.

Source: `LoraConfig` and `get_pattern_key` of peft 0.21.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from gemma.presets.errors import PresetFileError
from gemma.presets.json_file import read_json

MERGE_FIRST = "merge the adapter with PEFT and load the merged model instead"

_PATTERN = re.compile(r"\^?(?:[A-Za-z0-9_]|\\?\.)+")
_INERT = frozenset(
    (
        "auto_mapping",
        "base_model_name_or_path",
        "eva_config",  # how A and the ranks were chosen
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    )
)
"""Keys that change nothing in what tensors, ranks and alphas compute."""
_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` under which the base stays what it was."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftConfig:
    """Ranks and alphas, by module where they differ from the default."""

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int] = dataclasses.field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = dataclasses.field(default_factory=dict)
    use_rslora: bool = False
    base: str | None = None

    def rank_of(self, module: str) -> int:
        """Return the rank of a module such as `model.layers.0.self_attn.q_proj`."""
        return _by_pattern(self.rank_pattern, module, self.rank)

    def alpha_at(self, module: str, rank: int) -> float:
        """Return the alpha that gives a module's scale to adapters of `rank`."""
        own = self.rank_of(module)
        alpha = _by_pattern(self.alpha_pattern, module, self.alpha)
        return alpha * rank / (math.sqrt(own) if self.use_rslora else own)

    def to_json(self, targets: list[str], *, dropout: float) -> dict[str, Any]:
        """Return what PEFT writes for these settings."""
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "r": self.rank,
            "lora_alpha": _plain(self.alpha),
            "lora_dropout": dropout,
            "target_modules": targets,
            "rank_pattern": dict(self.rank_pattern),
            "alpha_pattern": {k: _plain(v) for k, v in self.alpha_pattern.items()},
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "modules_to_save": None,
            "use_dora": False,
            "use_rslora": self.use_rslora,
        }


def read_peft_config(path: epath.Path) -> PeftConfig:
    """Return what `adapter_config.json` says.

    Raises:
        PresetFileError: A value is wrong, or asks for what has no place in ours.
    """
    values = read_json(path)
    for key, value in values.items():
        _check(path, key, value)
    config = PeftConfig(
        rank=_rank(path, "r", values.get("r", 8)),
        alpha=_alpha(path, "lora_alpha", values.get("lora_alpha", 8)),
        rank_pattern={
            key: _rank(path, "rank_pattern", value)
            for key, value in _patterns(path, "rank_pattern", values)
        },
        alpha_pattern={
            key: _alpha(path, "alpha_pattern", value)
            for key, value in _patterns(path, "alpha_pattern", values)
        },
        use_rslora=bool(values.get("use_rslora")),
    )
    base = values.get("base_model_name_or_path")
    return dataclasses.replace(config, base=base if isinstance(base, str) else None)


_NUMBERS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")


def _check(path: epath.Path, key: str, value: object) -> None:
    """Refuse a key that changes the numbers and has no place in our adapters."""
    if key == "peft_type":
        right, expected = value == "LORA", "LORA"
    elif key == "bias":
        right, expected = value == "none", "none: our layers have no bias"
    elif key == "init_lora_weights":
        right = value in _STARTS
        expected = "a start that leaves the base as it was"
    elif key in _INERT or key in _NUMBERS:
        return
    else:  # of a newer PEFT too: what is on may change the numbers
        right, expected = not value, "nothing: our adapters have no place for it"
    if not right:
        _refuse(path, key, expected, value)


def _patterns(
    path: epath.Path, key: str, values: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    patterns = values.get(key) or {}
    if not isinstance(patterns, dict):
        _refuse(path, key, "an object", patterns)
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            _refuse(path, key, "names of modules, or the ends of names", pattern)
    return list(patterns.items())


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:  # noqa: ANN401
    """Return the value of the first pattern that a module's name ends in."""
    for pattern, value in patterns.items():
        whole, end = pattern.startswith("^"), pattern.lstrip("^").replace("\\.", ".")
        if module == end or (not whole and module.endswith(f".{end}")):
            return value
    return default


def _rank(path: epath.Path, key: str, value: object) -> int:
    if type(value) is not int or value < 1:
        _refuse(path, key, "an integer >= 1", value)
    return value


def _alpha(path: epath.Path, key: str, value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        _refuse(path, key, "a finite number > 0", value)
    return float(value)


def _plain(value: float) -> float | int:
    """Return a whole number as PEFT writes it."""
    return int(value) if float(value).is_integer() else value


def _refuse(path: epath.Path, key: str, expected: str, received: object) -> None:
    raise PresetFileError(
        f"{path}, {key}",
        expected=expected,
        received=repr(received)[:200],
        fix=MERGE_FIRST,
    )
