"""The files of a preset directory: their names, and their replacement as a whole.

Turns a directory into a folder to write to, whose files take the place of an older
preset's once all of them are written. It refuses to know what the files hold, and
leaves those alone that are no part of a preset, such as a model card's.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Literal

from etils import epath

from gemma.presets.hf_weights import INDEX_FILE
from gemma.presets.hf_weights import WEIGHTS_FILE as HF_WEIGHTS_FILE
from gemma.presets.keras_config import CONFIG_FILE, PREPROCESSOR_FILE, VOCABULARY_FILE
from gemma.presets.keras_weights import SHARDED_WEIGHTS_FILE, WEIGHTS_FILE

METADATA_FILE = "metadata.json"
TOKENIZER_FILE = "tokenizer.json"
TASK_FILE = "task.json"
GENERATION_FILE = "generation_config.json"
HF_TOKENIZER_FILE = "tokenizer.model"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

Form = Literal["keras", "hf"]

FORM_FILES: dict[Form, tuple[str, ...]] = {
    "keras": (
        CONFIG_FILE,
        METADATA_FILE,
        TOKENIZER_FILE,
        PREPROCESSOR_FILE,
        TASK_FILE,
        VOCABULARY_FILE,
        WEIGHTS_FILE,
        SHARDED_WEIGHTS_FILE,
        "model_*.weights.h5",
    ),
    "hf": (
        CONFIG_FILE,
        GENERATION_FILE,
        TOKENIZER_FILE,
        HF_TOKENIZER_FILE,
        TOKENIZER_CONFIG_FILE,
        "special_tokens_map.json",
        HF_WEIGHTS_FILE,
        INDEX_FILE,
        "model-*-of-*.safetensors",
    ),
}
"""Names and patterns of the files of either form; `config.json` stands first."""

UNFINISHED = ".preset-*"
"""Folders within a directory, of writers that were killed."""


@contextlib.contextmanager
def replaced_preset(directory: epath.PathLike) -> Iterator[epath.Path]:
    """Yield an empty folder whose files then replace the preset in `directory`.

    The folder lies within the directory, which needs room for both presets. Whatever
    fails, the older preset is as it was; a process that is killed while the files
    change places leaves both of them, partly within the folder `.preset-*`. Such a
    folder is removed by the next writer, unless an older preset's files are in it.
    """
    target = epath.Path(directory)
    _remove_unfinished(target)
    folder = target / f".preset-{secrets.token_hex(4)}"
    new, old = folder / "new", folder / "old"
    new.mkdir(parents=True, exist_ok=True)
    moves: list[tuple[epath.Path, epath.Path]] = []
    try:
        yield new
        # config.json goes first and comes last: without it a directory is unfinished
        moves = [(target / name, old / name) for name in _names(target)]
        moves += [(new / name, target / name) for name in reversed(_names(new))]
        for source, place in moves:
            _move(source, place)
    except BaseException:
        for source, place in reversed(moves):
            if place.exists() and not source.exists():
                _move(place, source)
        _remove(folder)
        raise
    _remove(folder)


def _names(directory: epath.Path) -> list[str]:
    """Return the files of a preset of any form that lie in a directory."""
    patterns = dict.fromkeys(name for form in FORM_FILES.values() for name in form)
    found = []
    for pattern in patterns:
        if "*" in pattern:
            found += sorted(path.name for path in directory.glob(pattern))
        elif (directory / pattern).exists():
            found.append(pattern)
    return found


def _move(source: epath.Path, place: epath.Path) -> None:
    """Rename a file; object stores, which know no empty folders, get a copy in one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.parent.exists():
        source.rename(place)
    else:
        source.copy(place)
        source.unlink()


def _remove_unfinished(target: epath.Path) -> None:
    for folder in list(target.glob(UNFINISHED)) if target.exists() else []:
        if not (folder / "old").exists():
            _remove(folder)


def _remove(folder: epath.Path) -> None:
    if folder.exists():  # an object store forgets an empty one
        folder.rmtree()
