"""Dimensions that a file states, turned into a config or refused.

Knows what a Gemma model can be and how large; it refuses to know how files spell it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from gemma.config import GemmaConfig
from gemma.presets.errors import PresetFileError

MAX_LAYERS = 1000
MAX_PARAMETERS = 10**12
"""Forty times the largest Gemma: what a damaged or hostile file may not exceed."""


def checked_config(
    path: epath.Path, kind: type[GemmaConfig], arguments: Mapping[str, Any]
) -> GemmaConfig:
    """Return the config of a file.

    Raises:
        PresetFileError: No Gemma model has these dimensions.
    """
    try:
        _check_layers(arguments.get("num_layers"))
        config = kind.from_mapping(arguments)
        if config.parameter_count > MAX_PARAMETERS:
            raise ValueError(f"{config.parameter_count} parameters")
    except ValueError as error:
        raise PresetFileError(
            path,
            expected="dimensions of a Gemma model",
            received=f"others ({error})",
            fix="fetch the file again from where it was published",
        ) from error
    return config


def _check_layers(layers: object) -> None:
    """Refuse a number of layers whose variables could not even be listed."""
    if isinstance(layers, int) and layers > MAX_LAYERS:
        raise ValueError(f"num_layers must be at most {MAX_LAYERS}, received {layers}")
