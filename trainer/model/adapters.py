"""Which adapters a run has, what they start from, and whether the base is theirs.

Turns `lora.*` into settings and, where a file is named, into its factors; turns a
base, in files or spread over devices, into its hash. It refuses to know how a file of
adapters is laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np

from gemma.adapters import Adapter, base_hash, is_peft_directory, read_lora, read_peft
from gemma.adapters.base import central_block
from gemma.adapters.factors import largest_rank
from gemma.config import GemmaConfig
from gemma.lora import LoraSettings, lora_settings
from gemma.presets import Preset, PresetFileError, WeightSource
from gemma.stacked import StackedVariable
from trainer.config.errors import ConfigError, PresetError
from trainer.config.schema import LoraConfig

Tree = Mapping[str, StackedVariable]


def adapter_settings(
    config: LoraConfig, preset: Preset
) -> tuple[LoraSettings | None, Adapter | None]:
    """Return the adapters that `lora.*` asks for, and the file to start from.

    A file brings its own rank, alpha, targets and form.

    Raises:
        ConfigError: The file's name is wrong, or the rank above what a kernel has.
        PresetError: The file is missing, damaged or another model's.
    """
    if config.rank == 0:
        return None, None
    settings = lora_settings(
        config.rank,
        alpha=config.alpha,
        targets=config.targets,
        factorisation=config.factorisation,
        dropout=config.dropout,
    )
    if config.path is None:
        _check_rank(settings, preset.config)
        return settings, None
    adapter = _read_adapter(config.path, preset)
    return lora_settings(
        adapter.rank,
        alpha=adapter.alpha,
        targets=adapter.targets,
        factorisation=adapter.factorisation,
        dropout=config.dropout,
    ), adapter


def _check_rank(settings: LoraSettings, config: GemmaConfig) -> None:
    """Refuse adapters of a higher rank than their kernels have.

    Raises:
        ConfigError: They are.
    """
    largest = largest_rank(
        config, targets=settings.targets, factorisation=settings.factorisation
    )
    if settings.rank > largest:
        raise ConfigError(
            key="lora.rank",
            expected=f"at most {largest}, the smallest dimension of the kernels of "
            f"{', '.join(settings.targets)} in this preset",
            received=settings.rank,
            fix=f"lora.rank={largest}, or lora=none to train all weights",
        )


def hash_of_files(preset: Preset, source: WeightSource) -> str:
    """Return the hash of the base that lies in a preset's files."""
    return base_hash(preset.config, source.read)


def hash_of_arrays(
    preset: Preset, tree: Tree, arrays: Mapping[str, jax.Array], everywhere: object
) -> str:
    """Return the hash of the base whose stacked arrays are given.

    Args:
        preset: Whose dimensions the base has.
        tree: The state tree.
        arrays: Its weights, adapters left aside.
        everywhere: Sharding of what every device holds; each process hashes alike.
    """
    weights = {path: v for path, v in tree.items() if not v.is_adapter}

    @jax.jit
    def cut(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {
            path: jax.lax.with_sharding_constraint(a[_block(weights[path])], everywhere)
            for path, a in arrays.items()
        }

    blocks = cut({path: arrays[path] for path in weights})
    members: dict[str, np.ndarray] = {}
    for path, variable in weights.items():
        block = np.asarray(blocks[path].addressable_data(0))
        for layer, member in enumerate(variable.members):
            members[member.path] = block[layer] if variable.is_stacked else block
    return base_hash(preset.config, lambda path, index: members[path])


def check_base(
    adapter: Adapter | None, preset: Preset, found: Callable[[], str]
) -> None:
    """Refuse adapters that say that they were trained on another base.

    Raises:
        PresetError: Both bases are named.
    """
    if adapter is None or adapter.base_hash is None:
        return
    try:
        adapter.check_base("lora.path", base=preset.name, base_hash=found())
    except PresetFileError as error:
        raise _preset_error("lora.path", error) from error


def _block(variable: StackedVariable) -> tuple[slice, ...]:
    """Return the index of the central block of a variable, in all layers."""
    block = central_block(tuple(variable.members[0].shape))
    return (slice(None), *block) if variable.is_stacked else block


def _read_adapter(path: str, preset: Preset) -> Adapter:
    try:
        if is_peft_directory(path):
            return read_peft(path, preset.config)
        return read_lora(path, preset.config)
    except PresetFileError as error:
        raise _preset_error(f"lora.path ({error.subject})", error) from error
    except ValueError as error:
        raise ConfigError(
            key="lora.path",
            expected="a file whose name ends in .lora.h5, or a directory of PEFT's "
            "with adapter_config.json",
            received=path,
            fix="lora.path=outputs/RUN/artifacts/lora/adapter.lora.h5",
        ) from error


def _preset_error(key: str, error: PresetFileError) -> PresetError:
    return PresetError(
        key=key, expected=error.expected, received=error.received, fix=error.fix
    )
