"""Adapters written for KerasHub and read back as they were trained.

Turns named factors (`decoder_block_3/attention/query/lora_kernel_a`) into a `.lora.h5`
from which KerasHub computes the same, and back. That file has no place for alpha and
one A for all heads: alpha / rank is folded into every B, a shared A is written out for
each head, and the sidecar lets the reader undo both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence

import h5py
import numpy as np
from etils import epath

from gemma.adapters import factors
from gemma.adapters.factors import FACTOR_A, FACTOR_B
from gemma.adapters.sidecar import (
    Sidecar,
    check_replaceable,
    checked_path,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from gemma.config import GemmaConfig
from gemma.lora import PROJECTIONS, Factorisation, lora_settings
from gemma.presets import hdf5, keras_layout
from gemma.presets.errors import PresetFileError
from gemma.presets.source import check_whole, local_file

_RANK = "lora/vars/rank"
OTHER_BASE = "use the preset that the adapter was trained on"
OTHER_FACTORS = "pass one array for every path of factor_shapes"
_FETCH = "copy the .lora.h5 file and its .json again, both from one place"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """Factors of adapters and what is needed to use them; scale is alpha / rank."""

    arrays: Mapping[str, np.ndarray]
    """Unscaled factors, float32, by variable path."""
    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Names of the projections that have adapters, in every block."""
    factorisation: Factorisation
    base: str | None
    """Preset that the adapters were trained on, None where the file does not say."""
    base_hash: str | None = None
    """`gemma.adapters.base_hash` of it, None where the file does not say."""

    def check_base(self, subject: object, *, base: object, base_hash: str) -> None:
        """Refuse another base than the adapters were trained on, if they say which.

        Args:
            subject: Where the adapters come from.
            base: Name of the base that they are meant for.
            base_hash: Of that base.

        Raises:
            PresetFileError: It is another base; both are named.
        """
        if self.base_hash in (None, base_hash):
            return
        raise PresetFileError(
            subject,
            expected=f"the base it was trained on, {self.base} ({self.base_hash})",
            received=f"{base} ({base_hash})",
            fix="use that base, or train an adapter on this one",
        )


def write_lora(
    path: os.PathLike[str] | str,
    adapters: Mapping[str, np.ndarray],
    *,
    config: GemmaConfig,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    factorisation: Factorisation = "keras",
    base: str | None = None,
    base_hash: str | None = None,
) -> None:
    """Write adapters for KerasHub, then the sidecar that completes them.

    Raises:
        ValueError: A setting is impossible, or the name's suffix, a factor's shape or
            its dtype is not as stated.
        PresetFileError: Another file has the name of the sidecar.
    """
    path = checked_path(path)
    check_replaceable(sidecar_path(path))
    settings = lora_settings(
        rank, alpha=alpha, targets=targets, factorisation=factorisation
    )
    targets = settings.targets
    sidecar = Sidecar(
        rank=rank,
        alpha=settings.alpha,
        targets=targets,
        factorisation=factorisation,
        base=base,
        base_hash=base_hash,
    )
    arrays = {name: np.asarray(value) for name, value in adapters.items()}
    shapes = factors.factor_shapes(
        config, rank=rank, targets=targets, factorisation=factorisation
    )
    check_whole(
        "adapters",
        {n: a.shape for n, a in arrays.items()},
        shapes,
        fix=OTHER_FACTORS,
    )
    for name, values in arrays.items():
        if values.dtype != np.float32:
            raise ValueError(f"{name} must be float32, received {values.dtype}")
    content = _file_of(arrays, sidecar, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    write_sidecar(sidecar_path(path), sidecar, content)


def read_lora(path: os.PathLike[str] | str, config: GemmaConfig) -> Adapter:
    """Read adapters; a file without sidecar is KerasHub's own, where alpha is rank.

    Raises:
        PresetFileError: The file is damaged, is not whole, belongs to another model
            or to another sidecar.
        ValueError: The name does not end in `.lora.h5`.
    """
    path = checked_path(path)
    with contextlib.ExitStack() as cleanup:
        stored_rank, stored = _open_file(path, cleanup)
        sidecar = read_sidecar(sidecar_path(path), path)
        if sidecar is None:
            sidecar = Sidecar(
                rank=stored_rank,
                alpha=float(stored_rank),
                targets=_targets_of(path, stored, config),
                factorisation="keras",
                base=None,
                base_hash=None,
            )
        expected = factors.stored_rank(
            config,
            rank=sidecar.rank,
            targets=sidecar.targets,
            factorisation=sidecar.factorisation,
        )
        if stored_rank != expected:
            raise PresetFileError(
                path, expected=f"rank {expected}", received=stored_rank, fix=_FETCH
            )
        named = _named(path, stored, config, sidecar.targets, stored_rank)
        arrays = {
            name: hdf5.read_dataset(data).astype(np.float32, copy=False)
            for name, data in named.items()
        }
    _undo(path, arrays, sidecar)
    return Adapter(
        arrays=arrays,
        rank=sidecar.rank,
        alpha=sidecar.alpha,
        targets=sidecar.targets,
        factorisation=sidecar.factorisation,
        base=sidecar.base,
        base_hash=sidecar.base_hash,
    )


def _file_of(
    arrays: Mapping[str, np.ndarray], sidecar: Sidecar, config: GemmaConfig
) -> bytes:
    """Return the bytes of the `.lora.h5` file."""
    size = factors.stored_rank(
        config,
        rank=sidecar.rank,
        targets=sidecar.targets,
        factorisation=sidecar.factorisation,
    )
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file[_RANK] = np.int64(size)
        for layer, number in _numbers(config, sidecar.targets).items():
            a, b = arrays[f"{layer}/{FACTOR_A}"], arrays[f"{layer}/{FACTOR_B}"]
            if factors.is_shared(layer, sidecar.factorisation):
                a, b = factors.expand_shared(a, b)
            b = factors.scale_factor(b, sidecar.alpha / sidecar.rank)
            group = file.create_group(f"lora/{number}/vars")
            group[FACTOR_A] = factors.pad_factor(a, -1, size)
            group[FACTOR_B] = factors.pad_factor(b, 0, size)
    return buffer.getvalue()


def _undo(path: epath.Path, arrays: dict[str, np.ndarray], sidecar: Sidecar) -> None:
    """Take expansion, padding and scale out of the factors in place."""
    rank = sidecar.rank
    for name in [name for name in arrays if name.endswith(FACTOR_A)]:
        layer = name.rsplit("/", 1)[0]
        a, b = arrays[name], arrays[f"{layer}/{FACTOR_B}"]
        if factors.is_shared(layer, sidecar.factorisation):
            narrow = factors.contract_shared(a, b, rank)
            if narrow is None:
                raise PresetFileError(
                    f"{path}, {layer}",
                    expected="the same A for every head, as its sidecar says",
                    received="different ones",
                    fix=_FETCH,
                )
            a, b = narrow
        else:
            a, b = np.ascontiguousarray(a[..., :rank]), b[:rank]
        arrays[name] = a
        arrays[f"{layer}/{FACTOR_B}"] = factors.scale_factor(b, rank / sidecar.alpha)


def _numbers(config: GemmaConfig, targets: Sequence[str]) -> dict[str, int]:
    """Map the layers that have adapters to their numbers in the file."""
    return {
        layer: number
        for layer, number in keras_layout.adapter_indices(config).items()
        if layer.rsplit("/", 1)[-1] in targets
    }


def _open_file(
    path: epath.Path, cleanup: contextlib.ExitStack
) -> tuple[int, dict[str, h5py.Dataset]]:
    """Return the rank and the factors, unread, by `<number>/<factor>`."""
    file = cleanup.enter_context(hdf5.open_hdf5(local_file(path, cleanup)))
    found = hdf5.datasets(file)
    rank = found.pop(_RANK, None)
    if rank is None or rank.shape != () or rank.dtype.kind not in "iu":
        raise PresetFileError(
            path,
            expected=f"{_RANK} with one integer",
            received="no such dataset",
            fix="use a file written by save_lora_weights",
        )
    stored = {
        name.removeprefix("lora/").replace("/vars/", "/"): data
        for name, data in found.items()
    }
    return int(rank[()]), stored


def _targets_of(
    path: epath.Path, stored: Mapping[str, h5py.Dataset], config: GemmaConfig
) -> tuple[str, ...]:
    """Return the projections that a file without sidecar has factors for."""
    numbers = keras_layout.adapter_indices(config)
    layers = {str(number): layer for layer, number in numbers.items()}
    names = set()
    for name in stored:
        number = name.split("/", 1)[0]
        if number not in layers:
            raise PresetFileError(
                path,
                expected="adapters for projections of this model",
                received=f"one for layer number {number}, which has no projection",
                fix=OTHER_BASE,
            )
        names.add(layers[number].rsplit("/", 1)[-1])
    return tuple(name for name in PROJECTIONS if name in names)


def _named(
    path: epath.Path,
    stored: Mapping[str, h5py.Dataset],
    config: GemmaConfig,
    targets: Sequence[str],
    rank: int,
) -> dict[str, h5py.Dataset]:
    """Name the factors by variable path, proven to be whole, in block order."""
    layers = {str(number): layer for layer, number in _numbers(config, targets).items()}
    named = {}
    for name, values in stored.items():
        number, _, factor = name.partition("/")
        named[f"{layers.get(number, f'lora/{number}')}/{factor}"] = values
    shapes = factors.factor_shapes(
        config, rank=rank, targets=targets, factorisation="keras"
    )
    found = {name: data.shape for name, data in named.items()}
    check_whole(path, found, shapes, fix=OTHER_BASE)
    return {name: named[name] for name in shapes}
