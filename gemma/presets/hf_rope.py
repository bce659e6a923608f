"""Rotary positions as transformers spells them, read as our factors.

Turns `rope_theta`, `rope_local_base_freq` and `rope_scaling` of transformers 4, and
`rope_parameters` of transformers 5, into the factors by which positions are divided.
It refuses bases and kinds of scaling that our model does not compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from gemma.config import Gemma3Config, Rope
from gemma.presets.hf_fields import as_object, refuse

GLOBAL_BASE, LOCAL_BASE = 1_000_000.0, 10_000.0
"""Of Gemma 3; Gemma 1 and 2 have the local one everywhere."""

_KINDS = ("full_attention", "sliding_attention")


def check_plain_rope(path: epath.Path, values: Mapping[str, Any]) -> None:
    """Refuse other positions than those of Gemma 1 and 2.

    Raises:
        PresetFileError: Another base, or any scaling.
    """
    if values.get("rope_scaling") is not None:
        refuse(path, "rope_scaling", "null", values["rope_scaling"])
    _check_base(path, values, "rope_theta", LOCAL_BASE)
    nested = as_object(path, values, "rope_parameters")
    if _factor(path, "rope_parameters", nested, LOCAL_BASE) != 1.0:
        refuse(path, "rope_parameters.rope_type", "'default'", nested["rope_type"])


def rope_factors(path: epath.Path, values: Mapping[str, Any]) -> dict[str, float]:
    """Return both scaling factors of Gemma 3, under the names of its config.

    Transformers 4 scales the global layers alone; 5 says it of each kind.

    Raises:
        PresetFileError: Another base or kind of scaling, or two that disagree.
    """
    nested = as_object(path, values, "rope_parameters")
    if unknown := sorted(nested.keys() - {*_KINDS}):
        refuse(path, "rope_parameters", " and ".join(_KINDS), unknown)
    full, sliding = (as_object(path, nested, kind) for kind in _KINDS)
    scaling = as_object(path, values, "rope_scaling")
    for key in scaling.keys() & full.keys():
        if scaling[key] != full[key]:
            refuse(path, f"rope_scaling.{key}", repr(full[key]), scaling[key])
    _check_base(path, values, "rope_theta", GLOBAL_BASE)
    _check_base(path, values, "rope_local_base_freq", LOCAL_BASE)
    where = "rope_parameters.full_attention" if full else "rope_scaling"
    factor = _factor(path, where, full | scaling, GLOBAL_BASE)
    where = "rope_parameters.sliding_attention"
    return {
        "global_rope_scaling_factor": factor,
        "local_rope_scaling_factor": _factor(path, where, sliding, LOCAL_BASE),
    }


def rope_parameters(config: Gemma3Config) -> dict[str, dict[str, Any]]:
    """Return `rope_parameters` as transformers 5 writes it."""
    return {
        "full_attention": _parameters(config.rope("global")),
        "sliding_attention": _parameters(config.rope("local")),
    }


def _parameters(rope: Rope) -> dict[str, Any]:
    if rope.scaling_factor == 1.0:
        return {"rope_theta": rope.max_wavelength, "rope_type": "default"}
    return {
        "factor": rope.scaling_factor,
        "rope_theta": rope.max_wavelength,
        "rope_type": "linear",
    }


def _factor(
    path: epath.Path, where: str, values: Mapping[str, Any], base: float
) -> float:
    """Return by what positions are divided; 1 without scaling."""
    _check_base(path, values, "rope_theta", base, where=f"{where}.rope_theta")
    kind = values.get("rope_type") or values.get("type") or "default"
    known = {"rope_theta", "rope_type", "type"}
    if kind == "linear":
        known |= {"factor"}
    elif kind != "default":
        refuse(path, f"{where}.rope_type", "'default' or 'linear'", kind)
    if unknown := sorted(values.keys() - known):
        refuse(path, where, " and ".join(sorted(known - {"type"})), unknown)
    factor = values.get("factor", 1.0)
    is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not is_number or not factor > 0:
        refuse(path, f"{where}.factor", "a positive number", factor)
    return float(factor)


def _check_base(
    path: epath.Path,
    values: Mapping[str, Any],
    key: str,
    base: float,
    *,
    where: str | None = None,
) -> None:
    received = values.get(key)
    if received is not None and received != base:
        refuse(path, where or key, str(base), received)
