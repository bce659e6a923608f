"""Presets on Kaggle, file by file through kagglehub and its cache.

Turns `owner/model/framework/variation[/version]` into a directory. It asks for files
by names of its own, as KerasHub does: no list and no archive of the server decides
what is written where. It refuses to know tensors, and to ask for credentials.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

from etils import epath

from gemma.presets import hf_weights, keras_weights
from gemma.presets.directory import (
    GENERATION_FILE,
    HF_TOKENIZER_FILE,
    METADATA_FILE,
    TOKENIZER_FILE,
)
from gemma.presets.errors import PresetFileError, status_of
from gemma.presets.json_file import read_json
from gemma.presets.keras_config import (
    CONFIG_FILE,
    PREPROCESSOR_FILE,
    VOCABULARY_FILE,
)
from gemma.presets.wholeness import REFETCH, damage

_KERAS_FILES = (
    VOCABULARY_FILE,
    TOKENIZER_FILE,
    PREPROCESSOR_FILE,
    METADATA_FILE,
)
_HUGGING_FACE_FILES = (HF_TOKENIZER_FILE, GENERATION_FILE)
_VERSIONED_PARTS = 5


def fetch_kaggle(name: str, *, weights: bool) -> pathlib.Path:
    """Return the directory of a model, with what was missing of it downloaded.

    Args:
        name: Of the model; without a version the newest.
        weights: False fetches what stands beside them only.

    Raises:
        PresetFileError: A file is damaged, and its second download too.
        Exception: Whatever kagglehub raises.
    """
    if len(name.split("/")) == _VERSIONED_PARTS and (found := _cached_whole(name)):
        return found
    import kagglehub  # slow to import, and only needed here

    directory = _fetch_file(name, CONFIG_FILE).parent
    if not _is_complete(directory, CONFIG_FILE):  # Kaggle's notebooks mount models
        return pathlib.Path(kagglehub.model_download(name))
    name = "/".join((*name.split("/")[: _VERSIONED_PARTS - 1], directory.name))
    if found := _cached_whole(name):
        return found
    if "class_name" in read_json(epath.Path(directory / CONFIG_FILE)):
        extras, reader = _KERAS_FILES, keras_weights
        index = keras_weights.SHARDED_WEIGHTS_FILE
    else:
        extras, reader = _HUGGING_FACE_FILES, hf_weights
        index = hf_weights.INDEX_FILE
    single = reader.WEIGHTS_FILE
    _fetch_extras(name, directory, extras, settled=(single, index))
    if weights:
        _fetch_weights(name, directory, single, index, reader.weight_files)
    return directory


def cached_versions(name: str) -> list[int]:
    """Return the versions of a model of which the cache has something, in order."""
    parts = name.split("/")[: _VERSIONED_PARTS - 1]
    folder = _models_folder().joinpath(*parts)
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(p.name) for p in found if p.name.isdecimal() and p.is_dir())


def _fetch_extras(
    name: str,
    directory: pathlib.Path,
    files: tuple[str, ...],
    *,
    settled: tuple[str, ...],
) -> None:
    """Fetch what a model may lack, before its weights.

    Once one of `settled` is complete, all were asked for, the vocabulary excepted:
    another program may have fetched the weights alone.
    """
    has_weights = any(_is_complete(directory, file) for file in settled)
    for file in files:
        on_disk = (directory / file).exists()
        if has_weights and not on_disk and file != files[0]:
            continue
        try:
            _fetch_file(name, file)
        except Exception as error:  # the client's errors share no class
            status = status_of(error)
            unreachable = status is None and isinstance(error, OSError)
            absent = status == 404 or (has_weights and unreachable)
            if on_disk or not absent or (directory / file).exists():
                raise


def _fetch_weights(
    name: str,
    directory: pathlib.Path,
    single: str,
    index: str,
    shards: Callable[[epath.Path], list[str]],
) -> None:
    """Fetch the one file of weights, or the index and the files that it names."""
    if _is_complete(directory, index) or not _fetch_if_there(name, single):
        _fetch_if_there(name, index)
        for file in shards(epath.Path(directory)):
            _fetch_file(name, file)


def _fetch_if_there(name: str, file: str) -> bool:
    """Return False where the server says that the model has no such file."""
    try:
        _fetch_file(name, file)
    except Exception as error:  # the client's errors share no class
        if status_of(error) != 404:
            raise
        return False
    return True


def _fetch_file(name: str, file: str) -> pathlib.Path:
    """Return a file of the cache, fetched if need be, and once more if damaged."""
    path, flaw = _download(name, file, anew=False)
    if flaw:
        path, flaw = _download(name, file, anew=True)
    if flaw:
        raise PresetFileError(path, expected="a whole file", received=flaw, fix=REFETCH)
    return path


def _download(name: str, file: str, *, anew: bool) -> tuple[pathlib.Path, str | None]:
    import kagglehub
    from kagglehub.exceptions import DataCorruptionError

    try:
        path = kagglehub.model_download(name, path=file, force_download=anew)
    except DataCorruptionError:  # the client has removed the file
        return pathlib.Path(name, file), "content that is not of the published hash"
    return pathlib.Path(path), damage(pathlib.Path(path))


def _cached_whole(name: str) -> pathlib.Path | None:
    """Return the directory that kagglehub marked when it had the whole model."""
    path = _models_folder().joinpath(*name.split("/"))
    marker = path.with_name(f"{path.name}.complete")
    return path if marker.exists() and path.is_dir() else None


def _is_complete(directory: pathlib.Path, file: str) -> bool:
    """Return whether kagglehub marked a file of a model as finished."""
    markers = directory.parent / ".complete" / directory.name
    return (markers / f"{file}.complete").exists()


def _models_folder() -> pathlib.Path:
    cache = os.environ.get("KAGGLEHUB_CACHE")
    return pathlib.Path(cache or pathlib.Path.home() / ".cache/kagglehub") / "models"
