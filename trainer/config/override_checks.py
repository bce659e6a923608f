"""Whether the words of a command line name things that exist, with values that fit.

Turns overrides into problems with the nearest right spelling, all at once and before
anything is composed. Hydra's grammar has split them; their sense as a whole is the
subject of `trainer.config.checks`.
"""

from __future__ import annotations

import dataclasses

from omegaconf import DictConfig, OmegaConf

from trainer.config.choices import groups
from trainer.config.compose import assign, typed_again
from trainer.config.errors import ConfigError
from trainer.config.keys import all_keys, sections
from trainer.config.mesh_shape import parse_shape
from trainer.config.schema import RunConfig
from trainer.config.spelling import listing, nearest, nearest_key


@dataclasses.dataclass(frozen=True)
class Override:
    """One word of the command line, split.

    Attributes:
        key: Dotted key or name of a group, as it was typed, without plus signs.
        values: The value, or each value of a sweep.
        removes: It was typed with a `~`.
        text: The whole word.
    """

    key: str
    values: tuple[object, ...]
    removes: bool
    text: str


def override_problem(override: Override) -> ConfigError | None:
    """Return what is wrong with one override, or None."""
    if override.key == "hydra" or override.key.startswith(("hydra.", "hydra/")):
        return None
    if override.removes:
        return ConfigError(
            key=override.key,
            expected="key=value; keys and groups cannot be taken away",
            received=override.text,
            fix=_instead_of_removal(override.key),
        )
    if override.key in groups():
        return _group_problem(override)
    if override.key in all_keys():
        return _value_problem(override)
    return _unknown_key(override)


def _group_problem(override: Override) -> ConfigError | None:
    options = groups()[override.key]
    for value in override.values:
        chosen = value if isinstance(value, list) else [value]
        if override.key == "mesh":
            chosen = [value]  # mesh=[2,4] is one mesh, spelled otherwise
        for option in chosen:
            if typed_again(option) not in options:
                return _wrong_option(override.key, typed_again(option), options)
    return None


def _wrong_option(group: str, received: str, options: tuple[str, ...]) -> ConfigError:
    expected = f"one of {listing(options)}" if options else "nothing: there is none yet"
    near = nearest(received, options)
    fix = f"{group}={near}" if near else f"{group}={options[0]}" if options else ""
    if group == "mesh":
        try:
            parse_shape(received)
        except ConfigError as error:
            return error
    if group == "preset":
        expected += "; or preset.name= with a handle (kaggle://, hf://) or a directory"
        fix = fix if near else "preset=gemma2_tiny_en"
        if "/" in received or received.startswith("."):
            fix = f"preset.name={received}"
    if group == "lora" and received.removeprefix("rank").isdecimal():
        fix = f"lora.rank={received.removeprefix('rank')}"
    if group == "data" and ("/" in received or received.endswith(".jsonl")):
        fix = f"data=jsonl data.path={received}"
    return ConfigError(key=group, expected=expected, received=received, fix=fix)


def _value_problem(override: Override) -> ConfigError | None:
    config = OmegaConf.structured(RunConfig)
    assert isinstance(config, DictConfig)
    for value in override.values:
        if isinstance(value, str) and "${" in value:
            continue  # an interpolation: its type shows when it is composed
        try:
            if override.key == "mesh.shape" and value != "auto":
                parse_shape(typed_again(value))
            assign(config, override.key, value, origin="command line")
        except ConfigError as error:
            return error
    return None


def _unknown_key(override: Override) -> ConfigError:
    value = ",".join(typed_again(value) for value in override.values)
    key = override.key
    if key in sections():
        below = [name for name in all_keys() if name.startswith(f"{key}.")]
        return ConfigError(
            key=key,
            expected=f"one of its keys: {listing(below)}",
            received=override.text,
            fix=f"{below[0]}={value}",
        )
    top = key.split(".", 1)[0]
    near = nearest_key(key, [*all_keys(), *groups()])
    known = [name for name in all_keys() if name.startswith(f"{top}.")]
    known = known or sorted({name.split(".", 1)[0] for name in all_keys()})
    return ConfigError(
        key=key,
        expected=f"a key that exists: {listing(known)}",
        received=override.text,
        fix=f"{near}={value}" if near else "python -m trainer --help lists all keys",
    )


def _instead_of_removal(key: str) -> str:
    if key in groups():
        none = "none" if "none" in groups()[key] else groups()[key][0]
        return f"{key}={none}"
    facts = all_keys().get(key)
    return f"{key}=null" if facts and facts.optional else f"leave ~{key} out"
