"""The layout of a model as a table: what lies where, and what a mesh cannot divide.

Turns dimensions and the shape of a mesh into one row for each variable, adapters
included, without Keras, devices or arrays. It refuses to know activations and
optimizers.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

from gemma.adapters import factor_shapes
from gemma.config import GemmaConfig
from gemma.layout.fitting import FACTOR_BYTES, devices_of, fit_rules
from gemma.layout.rules import Spec, rule_of
from gemma.lora import LoraSettings
from gemma.quantized.grid import (
    SCALE_DTYPE,
    VALUE_DTYPES,
    Quantization,
    Shape,
    quantized_shapes,
)
from gemma.quantized.names import block_axis, is_quantizable, part_paths

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "uint8": 1}
DTYPES = ("float32", "bfloat16", "float16")

_MB = 1e6
_LAYER = re.compile(r"decoder_block_\d+/")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One variable on a mesh; bytes are whole numbers of bytes."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    spec: Spec
    """The axis that splits each dim, `batch`, `model` or None."""
    devices: int
    """How many different parts there are; the others hold copies."""
    bytes: int

    @property
    def bytes_per_device(self) -> int:
        """Bytes of the part that each device holds."""
        return self.bytes // self.devices


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayoutTable:
    """Every variable of a model on a mesh of `batch` x `model`; prints itself."""

    mesh_shape: tuple[int, int]
    rows: tuple[Row, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all variables, each counted once."""
        return sum(row.bytes for row in self.rows)

    @property
    def bytes_per_device(self) -> int:
        """Bytes that each device holds."""
        return sum(row.bytes_per_device for row in self.rows)

    @property
    def bytes_lost(self) -> int:
        """Bytes that each device holds beyond an equal share of all bytes."""
        return self.bytes_per_device - self.bytes // math.prod(self.mesh_shape)

    def __str__(self) -> str:
        """Return one line for each kind of variable, largest part first, and totals."""
        columns = [("path", "shape", "split over", "devices", "layers", "MB/device")]
        groups = sorted(
            self._kinds(), key=lambda g: -sum(r.bytes_per_device for r in g)
        )
        columns += [_cells(group) for group in groups]
        widths = [max(map(len, cells)) for cells in zip(*columns, strict=True)]
        lines = [_line(cells, widths) for cells in columns]
        batch, model = self.mesh_shape
        return "\n".join(
            [
                *lines,
                f"{self.bytes_per_device / _MB:,.1f} MB on each of {batch * model} "
                f"devices ({batch}x{model}, batch x model); "
                f"{self.bytes_lost / _MB:,.1f} MB of them lost against a perfect split",
            ]
        )

    def _kinds(self) -> Iterator[list[Row]]:
        """Yield the rows of one kind of variable, over all layers."""
        kinds: dict[str, list[Row]] = {}
        for row in self.rows:
            kinds.setdefault(_LAYER.sub("decoder_block_*/", row.path), []).append(row)
        yield from kinds.values()


def table(
    config: GemmaConfig,
    mesh_shape: tuple[int, int],
    *,
    dtype: str,
    lora: LoraSettings | None = None,
    quantize: Quantization | None = None,
) -> LayoutTable:
    """Return where every variable of a model lies on a mesh.

    Args:
        config: Dimensions, such as `gemma.presets.BUILT_IN["gemma2_9b_en"].config`.
        mesh_shape: Devices along `batch` and along `model`.
        dtype: Of the weights; adapters are float32.
        lora: Adapters to list too, from `gemma.lora.lora_settings`.
        quantize: List kernels and embedding as integers and scales of this many bits.

    Raises:
        ValueError: `mesh_shape` is not two positive integers, or the dtype is unknown.
    """
    _check_mesh_shape(mesh_shape)
    if dtype not in DTYPES:
        raise ValueError(
            f"dtype must be one of {', '.join(DTYPES)}, received {dtype!r}"
        )
    axis_sizes = dict(zip(("batch", "model"), mesh_shape, strict=True))
    specs = fit_rules(config, axis_sizes, lora)

    def row(path: str, shape: tuple[int, ...], dtype: str, item_bytes: int) -> Row:
        spec = specs[rule_of(path).pattern]
        return Row(
            path=path,
            shape=shape,
            dtype=dtype,
            spec=(*spec, *[None] * (len(shape) - len(spec))),
            devices=devices_of(spec, axis_sizes),
            bytes=math.prod(shape) * item_bytes,
        )

    weights = [
        part
        for path, shape in config.parameter_shapes().items()
        for part in _parts(path, shape, dtype, quantize)
    ]
    factors = _factors(config, lora)
    return LayoutTable(
        mesh_shape=mesh_shape,
        rows=(
            *(row(path, s, kind, ITEM_BYTES[kind]) for path, s, kind in weights),
            *(row(path, s, "float32", FACTOR_BYTES) for path, s in factors.items()),
        ),
    )


def _check_mesh_shape(shape: object) -> None:
    is_pair = isinstance(shape, tuple) and len(shape) == 2
    if not is_pair or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            "mesh_shape must be two positive integers, devices along batch and along "
            f"model, received {shape!r}"
        )


def _parts(
    path: str, shape: Shape, dtype: str, quantize: Quantization | None
) -> Iterator[tuple[str, Shape, str]]:
    """Yield path, shape and dtype of a weight, or of what it is quantized to."""
    if quantize is None or not is_quantizable(path, shape):
        yield path, shape, dtype
        return
    shapes = quantized_shapes(shape, quantize, block_axis(path))
    dtypes = (VALUE_DTYPES[quantize].name, SCALE_DTYPE.name)
    yield from zip(part_paths(path, quantize), shapes, dtypes, strict=True)


def _factors(
    config: GemmaConfig, lora: LoraSettings | None
) -> dict[str, tuple[int, ...]]:
    if lora is None:
        return {}
    return factor_shapes(
        config,
        rank=lora.rank,
        targets=lora.targets,
        factorisation=lora.factorisation,
    )


def _cells(rows: Sequence[Row]) -> tuple[str, ...]:
    first = rows[0]
    megabytes = sum(row.bytes_per_device for row in rows) / _MB
    return (
        _LAYER.sub("decoder_block_*/", first.path),
        " x ".join(map(str, first.shape)),
        " x ".join(axis or "-" for axis in first.spec),
        str(first.devices),
        str(len(rows)),
        f"{megabytes:,.1f}",
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    words, numbers = cells[:3], cells[3:]
    left = [word.ljust(width) for word, width in zip(words, widths, strict=False)]
    right = [n.rjust(width) for n, width in zip(numbers, widths[3:], strict=True)]
    return "  ".join([*left, *right])
