"""Typed configuration out of composed or stored text, and stored text out of it.

Turns a mapping or YAML into a `RunConfig`, every value of the type that the schema
names. Interpolations in a stored file stay what they are, text: nothing is resolved.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.config.errors import ConfigError
from trainer.config.keys import all_keys
from trainer.config.schema import RunConfig
from trainer.config.spelling import nearest_key

_SOURCE_LINE = re.compile(r"(?m)^(artifacts:\n(?:[ ]+.*\n)*?[ ]+)source:")
_MAX_STORED_BYTES = 1 << 20


def to_run_config(composed: DictConfig) -> RunConfig:
    """Return the typed form of what Hydra composed, interpolations resolved."""
    return cast(RunConfig, OmegaConf.to_object(composed))


def to_yaml(config: RunConfig) -> str:
    """Return every key as YAML, in the order of the schema and as it is typed."""
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, width=88)
    return spell_as_typed(text)


def spell_as_typed(text: str) -> str:
    """Return YAML of a configuration with `artifacts.source` spelled `from`."""
    return _SOURCE_LINE.sub(r"\1from:", text)


def from_yaml(text: str, *, origin: str) -> RunConfig:
    """Return the configuration that `to_yaml` wrote.

    Args:
        text: YAML; at most 1 MiB, without aliases.
        origin: File that the text is from, for messages.

    Raises:
        ConfigError: The text is no configuration of this version.
    """
    if len(text) > _MAX_STORED_BYTES or re.search(r"(?m)[:\-]\s+[&*]\w", text):
        raise _unreadable(origin, "more than 1 MiB, or YAML anchors")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _unreadable(origin, str(error).splitlines()[0]) from error
    if not isinstance(values, Mapping):
        raise _unreadable(origin, type(values).__name__)
    return from_mapping(values, origin=origin)


def from_mapping(values: Mapping[str, Any], *, origin: str) -> RunConfig:
    """Return the configuration that holds these values and defaults elsewhere.

    Raises:
        ConfigError: A key is unknown or a value has the wrong type.
    """
    flat = dict(_flat(values, ""))
    config = OmegaConf.structured(RunConfig)
    for key, value in flat.items():
        assign(config, key, value, origin=origin)
    return to_run_config(config)


def assign(config: DictConfig, key: str, value: object, *, origin: str) -> None:
    """Set one key of a structured configuration.

    Raises:
        ConfigError: The key is unknown or the value has the wrong type.
    """
    facts = all_keys().get(key)
    if facts is None:
        near = nearest_key(key, all_keys())
        raise ConfigError(
            key=key,
            expected=f"a key of the schema ({origin})",
            received=key,
            fix=f"{near}={typed_again(value)}" if near else "python -m trainer --help",
        )
    try:
        OmegaConf.update(config, key, _without_interpolation(value))
    except OmegaConfBaseException as error:
        raise ConfigError(
            key=key,
            expected=facts.expected,
            received=typed_again(value),
            fix=f"{key}={example(key)}",
        ) from error


def example(key: str) -> str:
    """Return the default of a key as it would be typed."""
    default = OmegaConf.select(OmegaConf.structured(RunConfig), key)
    if OmegaConf.is_config(default):
        default = OmegaConf.to_container(default)
    return typed_again(default)


def typed_again(value: object) -> str:
    """Return a value as it would be typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value)


def _without_interpolation(value: object) -> object:
    if isinstance(value, str):
        return value.replace("${", r"\${")
    if isinstance(value, list):
        return [_without_interpolation(item) for item in value]
    return value


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        key = "artifacts.source" if key == "artifacts.from" else key
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{key}.")
        else:
            pairs.append((key, value))
    return pairs


def _unreadable(origin: str, received: str) -> ConfigError:
    return ConfigError(
        key=origin,
        expected="the YAML of a run's configuration",
        received=received,
        fix="choose another run.name, or restore the file",
    )
