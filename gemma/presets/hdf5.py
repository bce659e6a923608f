"""HDF5 files from strangers, opened so that they can only be read as arrays.

Turns a path into the plain datasets of the file, or into an error that names what the
file is instead. It refuses links out of the file, virtual and external data, objects
that occur twice and shapes without bytes behind them, and knows no layer's name.
"""

from __future__ import annotations

import math
import pathlib
import zlib
from collections.abc import Callable, Iterator

import h5py
import ml_dtypes
import numpy as np

from gemma.presets import signatures
from gemma.presets.errors import PresetFileError
from gemma.presets.mapping import MappedFile

_MAX_EXPANSION = 1000
"""A compressed dataset may declare this many times the bytes that are stored,"""
_MAX_FILE_EXPANSION = 10
_FREE_BYTES = 64 << 20
"""and all of a file this many bytes and times its size: zeros are few in weights."""
_MAX_DEPTH = 16
_FILTERS = (
    (h5py.h5z.FILTER_DEFLATE,),
    (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE),
)
"""By which a dataset may be compressed."""

_FETCH = "fetch the file again from where it was published"


def open_hdf5(path: pathlib.Path) -> h5py.File:
    """Open a file for reading.

    Raises:
        PresetFileError: The file is missing, empty, cut off or something else.
    """
    signatures.check_signature(path, signatures.HDF5, kind="an HDF5 file")
    try:
        return h5py.File(path, mode="r")
    except OSError as error:
        raise PresetFileError(
            path, expected="a whole HDF5 file", received=str(error), fix=_FETCH
        ) from error


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Map the full name of every dataset to it, without reading any.

    Raises:
        PresetFileError: The file holds something that is no plain dataset.
    """
    found = dict(_walk(file, file, "", {_address(file)}, 0))
    declared, size = sum(map(_declared, found.values())), file.id.get_filesize()
    if declared > _FREE_BYTES + _MAX_FILE_EXPANSION * size:
        _refuse(file, "all datasets", f"{declared} bytes declared in {size}")
    return found


def native_dtype(dataset: h5py.Dataset) -> np.dtype:
    """Return the dtype that reading gives; Keras stores bfloat16 as two raw bytes.

    Raises:
        PresetFileError: The dataset holds no numbers.
    """
    if dataset.attrs.get("dtype") == "bfloat16" and dataset.dtype.itemsize == 2:
        return np.dtype(ml_dtypes.bfloat16)
    if dataset.dtype.kind != "f":
        raise PresetFileError(
            f"{dataset.file.filename}, {dataset.name}",
            expected="floating point numbers",
            received=f"dtype {dataset.dtype}",
            fix=_FETCH,
        )
    return dataset.dtype.newbyteorder("=")


def read_dataset(
    dataset: h5py.Dataset, index: tuple[slice, ...] | None = None
) -> np.ndarray:
    """Read a dataset or a part of it in its native dtype."""
    dtype = native_dtype(dataset)
    values = np.asarray(dataset[() if index is None else index])
    if values.dtype.kind == "V":
        return values.view(dtype)
    return values.astype(dtype, copy=False)


class _Parts:
    """A dataset in chunks, compressed or not, that HDF5 must read."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype = native_dtype(dataset)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return read_dataset(self._dataset, index)


def stored_arrays(
    file: h5py.File, *, ignored: Callable[[str], bool]
) -> dict[str, np.ndarray | _Parts]:
    """Map the name of every dataset to a view of its bytes, or to what reads it.

    Datasets whose names are `ignored` are left out.

    Raises:
        PresetFileError: The file holds something that is no plain dataset of numbers.
    """
    mapped = MappedFile(pathlib.Path(file.filename))
    arrays: dict[str, np.ndarray | _Parts] = {}
    for name, data in datasets(file).items():
        if ignored(name):
            continue
        native, offset = native_dtype(data), data.id.get_offset()
        if offset is None or file.userblock_size:
            arrays[name] = _Parts(data)
            continue
        dtype = native if data.dtype.kind == "V" else data.dtype
        arrays[name] = mapped.array(offset, dtype, data.shape, name=name)
    return arrays


def _walk(
    file: h5py.File, group: h5py.Group, prefix: str, seen: set[int], depth: int
) -> Iterator[tuple[str, h5py.Dataset]]:
    if depth > _MAX_DEPTH:
        _refuse(file, prefix, f"groups more than {_MAX_DEPTH} deep")
    for name in group:
        full = f"{prefix}{name}"
        if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            link = group.get(name, getlink=True)
            _refuse(file, full, f"a {type(link).__name__}")
        item = group[name]
        address = _address(item)
        if address in seen:
            _refuse(file, full, "a second link to the same object")
        seen.add(address)
        if isinstance(item, h5py.Group):
            yield from _walk(file, item, f"{full}/", seen, depth + 1)
        elif isinstance(item, h5py.Dataset):
            _check_dataset(file, full, item)
            yield full, item
        else:
            _refuse(file, full, f"a {type(item).__name__}")


def _check_dataset(file: h5py.File, name: str, dataset: h5py.Dataset) -> None:
    if dataset.external:
        _refuse(file, name, "data in another file")
    if dataset.is_virtual:
        _refuse(file, name, "a virtual dataset")
    if dataset.shape is None:
        _refuse(file, name, "a dataset without a shape")
    declared, stored = _declared(dataset), dataset.id.get_storage_size()
    if declared > _MAX_EXPANSION * stored:
        _refuse(file, name, f"{declared} bytes declared and {stored} stored")
    _check_chunks(file, name, dataset)


def _check_chunks(file: h5py.File, name: str, dataset: h5py.Dataset) -> None:
    """Refuse a compressed chunk that spells out anything but its size.

    HDF5 gives inflating as much memory as the stream asks for.
    """
    settings = dataset.id.get_create_plist()
    count = settings.get_nfilters()
    filters = tuple(settings.get_filter(number)[0] for number in range(count))
    if not filters:
        return
    if filters not in _FILTERS:
        _refuse(file, name, f"filters {filters}, which are not shuffle and gzip")
    places: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda chunk: places.append(chunk.chunk_offset))
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    for place in places:
        skipped, content = dataset.id.read_direct_chunk(place)
        try:
            found = len(zlib.decompressobj().decompress(content, size + 1))
        except zlib.error:
            found = 0
        if skipped or found != size:
            _refuse(file, name, f"a chunk that does not hold its {size} bytes")


def _declared(dataset: h5py.Dataset) -> int:
    """Return the bytes that reading fills: at least one chunk, however small the rest.

    Chunks may be larger than the dataset, where it can grow.
    """
    sizes = (math.prod(dataset.shape), math.prod(dataset.chunks or (0,)))
    return max(sizes) * dataset.dtype.itemsize


def _refuse(file: h5py.File, name: str, received: str) -> None:
    raise PresetFileError(
        f"{file.filename}, {name}",
        expected="a group or a plain dataset",
        received=received,
        fix="use a file from a source that you trust",
    )


def _address(item: h5py.HLObject) -> int:
    return int(h5py.h5o.get_info(item.id).addr)
