"""JSONL files as rows with numbers.

Turns a file or glob into an index of line offsets, eight bytes a row, and reads single
lines on request: a file of any size is mapped, never loaded. It refuses to know what a
row means beyond asking `trainer.data.rows`.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import mmap
import os
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np
from etils import epath

from trainer import storage
from trainer.config.errors import DataError
from trainer.config.schema import ColumnsConfig
from trainer.data.rows import Row, parse_json_row

_SCAN_BYTES = 1 << 24
_SHORTEST_ROW_BYTES = 12  # {"text":"a"}; what is shorter may be blank
_GLOB_CHARACTERS = frozenset("*?[")


class JsonlSource:
    """Rows of JSONL files, in the order of file names and lines; blank lines are none.

    Args:
        files: Local files.
        columns: Names of the fields.
        names: What to call the files in messages; their paths by default.
    """

    def __init__(
        self,
        files: Sequence[pathlib.Path],
        columns: ColumnsConfig,
        names: Sequence[str] | None = None,
    ) -> None:
        self.columns = columns
        self.names = list(names or map(str, files))
        self._maps = [_map(file) for file in files]
        indexed = [_index_lines(content) for content in self._maps]
        self._spans = [spans for spans, _ in indexed]
        self._lines = [lines for _, lines in indexed]
        self._firsts = np.cumsum([0, *(len(lines) for lines in self._lines)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, index: int) -> Row:
        """Return row `index`.

        Raises:
            BadRowError: The line is no row.
        """
        file, offset = self._locate(index)
        start, end = self._spans[file][offset].tolist()
        return parse_json_row(self._maps[file][start:end], self.columns)

    def place(self, index: int) -> str:
        """Return `file:line` of row `index`, lines counted from 1."""
        file, offset = self._locate(index)
        return f"{self.names[file]}:{self._lines[file][offset]}"

    def digest(self) -> str:
        """Return the SHA-256 of the files' contents, whatever they are called."""
        total = hashlib.sha256()
        for content in self._maps:
            total.update(hashlib.sha256(content).digest())
        return total.hexdigest()

    def _locate(self, index: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return file, index - int(self._firsts[file])


def open_jsonl(pattern: str, columns: ColumnsConfig, *, key: str) -> JsonlSource:
    """Open the file, or all files, that `pattern` names, sorted by name.

    Remote files are copied to this machine first, because rows are read out of order.

    Raises:
        DataError: `pattern` names no file.
    """
    if _is_local(pattern, key=key):
        files = [pathlib.Path(name) for name in _find_local(pattern, key=key)]
        return JsonlSource(files, columns)
    remote = _find_remote(pattern, key=key)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="rows-"))
    files = [directory / f"{number}.jsonl" for number in range(len(remote))]
    for source, file in zip(remote, files, strict=True):
        storage.download(source, file)
    opened = JsonlSource(files, columns, names=list(map(str, remote)))
    for file in files:  # the mapping keeps the content for as long as it is needed
        file.unlink()
    directory.rmdir()
    return opened


def _is_local(pattern: str, *, key: str) -> bool:
    try:
        return storage.is_local(pattern)
    except KeyError as error:  # etils 1.15 looks the scheme up in a table
        raise DataError(
            key=key,
            expected="a local path, or gs://bucket/path",
            received=pattern,
            fix="copy the files to this machine and name them there",
        ) from error


def _find_local(pattern: str, *, key: str) -> list[str]:
    pattern = os.path.expanduser(pattern)
    if os.path.isdir(pattern):
        raise DataError(
            key=key,
            expected="a file or a glob",
            received=f"the directory {pattern}",
            fix=f"{key}='{os.path.join(pattern, '*.jsonl')}'",
        )
    if os.path.isfile(pattern):
        return [pattern]
    found = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not found:
        raise _no_file(pattern, key=key)
    return found


def _find_remote(pattern: str, *, key: str) -> list[epath.Path]:
    path = epath.Path(pattern)
    if _GLOB_CHARACTERS.isdisjoint(pattern):
        found = [path] if storage.exists(path) else []
    else:
        found = sorted(path.parent.glob(path.name))
    if not found:
        raise _no_file(pattern, key=key)
    return found


def _no_file(pattern: str, *, key: str) -> DataError:
    directory, name = os.path.split(pattern)
    suffixes = {".jsonl", os.path.splitext(name)[1]}
    names = storage.list_names(directory or ".")
    there = [each for each in names if os.path.splitext(each)[1] in suffixes]
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    fix = "check the path; it is relative to the current folder"
    return DataError(
        key=key,
        expected="a JSONL file, or a glob that matches some",
        received=f"{pattern}, which matches none",
        fix=f"{key}={os.path.join(directory, near[0])}" if near else fix,
    )


def _map(file: pathlib.Path) -> mmap.mmap | bytes:
    with open(file, "rb") as opened:
        if os.fstat(opened.fileno()).st_size == 0:
            return b""  # nothing cannot be mapped
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _index_lines(content: mmap.mmap | bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return [row, (start, end)] in bytes, and the line numbers from 1, int64."""
    size = len(content)
    found = [np.empty(0, np.int64)]
    for at in range(0, size, _SCAN_BYTES):
        part = np.frombuffer(content[at : at + _SCAN_BYTES], np.uint8)
        found.append(np.flatnonzero(part == 10) + at)
    ends = np.concatenate(found)
    if size and (not len(ends) or ends[-1] != size - 1):
        ends = np.append(ends, size)  # the last line has no line break
    starts = np.append(0, ends[:-1] + 1)[: len(ends)]
    short = np.flatnonzero(ends - starts < _SHORTEST_ROW_BYTES)
    blank = [at for at in short if not content[starts[at] : ends[at]].strip()]
    spans = np.stack([starts, ends], axis=1)
    lines = np.arange(1, len(ends) + 1)
    return np.delete(spans, blank, axis=0), np.delete(lines, blank)
