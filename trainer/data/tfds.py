"""TFDS data sets as rows with numbers.

Turns a data set that was prepared as array_record into rows read by number, without
TensorFlow and without network. It refuses to prepare or download anything.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from typing import Any

import numpy as np
from etils import epath

from trainer.config.errors import ConfigError, DataError
from trainer.config.schema import ColumnsConfig, DataConfig
from trainer.data.rows import BadRowError, Row, parse_row

INFO_FILE = "dataset_info.json"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class TfdsSource:
    """Rows of one split."""

    def __init__(
        self, directory: epath.Path, split: str, columns: ColumnsConfig
    ) -> None:
        import tensorflow_datasets as tfds  # 0.5 s that only its users should wait

        self._builder = tfds.builder_from_directory(directory)
        self._records = self._builder.as_data_source(split=split)
        self._name = f"{self._builder.info.full_name} {split}"
        self._split = split
        self.columns = columns

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Row:
        """Return row `index`.

        Raises:
            BadRowError: The record is no row.
        """
        return parse_row(_to_plain(self._records[index]), self.columns)

    def place(self, index: int) -> str:
        """Return the data set, the split and the number of the record, from 0."""
        return f"{self._name}:{index}"

    def digest(self) -> str:
        """Return a SHA-256 of the split and its files."""
        total = hashlib.sha256(f"{self._name}\n".encode())
        base = self._split.partition("[")[0]
        for path in sorted(self._builder.info.splits[base].filepaths):
            total.update(hashlib.sha256(epath.Path(path).read_bytes()).digest())
        return total.hexdigest()


def open_tfds(config: DataConfig, split: str, *, key: str) -> TfdsSource:
    """Open a split of the data set that a configuration names.

    Raises:
        ConfigError: No name is given.
        DataError: It is not in the directory, not array_record, or has no such split.
    """
    if config.name is None:
        raise ConfigError(
            key="data.name",
            expected="the name of a prepared TFDS data set",
            received="null",
            fix="data.name=my_dataset data.data_dir=~/tensorflow_datasets",
        )
    directory = find_prepared(config.name, config.data_dir)
    try:
        return TfdsSource(directory, split, config.columns)
    except (ValueError, NotImplementedError, KeyError) as error:
        raise _unreadable(directory, split, error, key=key) from error


def find_prepared(name: str, data_dir: str | None) -> epath.Path:
    """Return the directory of `name` or `name/config:version`, the newest version.

    Raises:
        DataError: Nothing is there; the message names the directory looked in.
    """
    root = epath.Path(data_dir or _default_directory()).expanduser()
    path, _, version = name.partition(":")
    directory = root / path
    for candidate in [directory, *_only_config(directory)]:
        if (candidate / INFO_FILE).exists():
            return candidate
        versions = [v for v in _children(candidate) if _VERSION.fullmatch(v)]
        if version:
            versions = [v for v in versions if v == version]
        if versions:
            return candidate / max(versions, key=_version_key)
    raise _not_prepared(name, root, directory)


def _only_config(directory: epath.Path) -> list[epath.Path]:
    """Return the one config of a data set, none where a choice must be made."""
    configs = [child for child in _children(directory) if not _VERSION.fullmatch(child)]
    return [directory / configs[0]] if len(configs) == 1 else []


def _children(directory: epath.Path) -> list[str]:
    if not directory.is_dir():
        return []
    return sorted(child.name for child in directory.iterdir() if child.is_dir())


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _default_directory() -> str:
    return os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")


def _not_prepared(name: str, root: epath.Path, directory: epath.Path) -> DataError:
    there = _children(directory) or _children(root)
    there = [child for child in there if child != "downloads"]  # TFDS's own
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.6)
    if near:
        fix = f"data.name={near[0]}"
    elif there:
        fix = f"choose one of {', '.join(there[:10])}"
    else:
        fix = "prepare it there with file_format='array_record', or set data.data_dir"
    return DataError(
        key="data.name",
        expected=f"a prepared data set {name} in {root}",
        received=f"no {INFO_FILE} under {directory}",
        fix=fix,
    )


def _unreadable(
    directory: epath.Path, split: str, error: Exception, *, key: str
) -> DataError:
    reason = str(error).strip().splitlines()
    return DataError(
        key=key,
        expected=f"split {split} of {directory}, prepared as array_record",
        received=reason[0] if reason else type(error).__name__,
        fix="check the split's name, or prepare the data set again with "
        "file_format='array_record'",
    )


def _to_plain(value: Any) -> Any:  # noqa: ANN401  # features nest
    """Return features as JSON has them: text for bytes, lists for arrays."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadRowError(f"is not UTF-8 at byte {error.start}") from None
    if isinstance(value, (np.ndarray, np.generic)):
        return _to_plain(value.tolist())
    if isinstance(value, list):
        return [_to_plain(item) for item in value]
    if isinstance(value, dict):
        plain = {name: _to_plain(item) for name, item in value.items()}
        if plain.keys() == {"role", "content"} and isinstance(plain["role"], list):
            # a Sequence of features comes as features of lists
            pairs = zip(plain["role"], plain["content"], strict=True)
            return [{"role": role, "content": content} for role, content in pairs]
        return plain
    return value
