"""One call for every way to name a preset.

Turns a built-in name, a directory in KerasHub's or Hugging Face's form, or a handle
into facts at once and into arrays on request. It refuses to build a model, to download
weights before they are asked for, and anything at all where the table has the facts.
"""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
from typing import Literal

from etils import epath

from gemma.config import Architecture, GemmaConfig
from gemma.presets import handles
from gemma.presets.directory import HF_TOKENIZER_FILE, Form
from gemma.presets.errors import PresetFileError
from gemma.presets.hf_config import read_hf_config
from gemma.presets.hf_weights import open_hf_weights
from gemma.presets.json_file import read_json
from gemma.presets.keras_config import (
    CONFIG_FILE,
    VOCABULARY_FILE,
    read_config,
    read_preprocessor,
)
from gemma.presets.keras_weights import open_keras_weights
from gemma.presets.source import WeightSource, inside
from gemma.presets.table import BUILT_IN, BuiltIn
from gemma.presets.vocabulary import read_vocabulary

PACKAGE_DIRECTORY = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """Facts about a preset, and the way to its arrays."""

    name: str
    """As it was asked for: a name, a handle or a directory."""
    config: GemmaConfig
    dtype: str
    """Of the weights in the files: `float32` or `bfloat16`."""
    form: Literal["keras", "hf", "table"]
    """Of the directory; `table` where the weights have not been downloaded."""
    directory: epath.Path | None = None
    handle: str | None = None
    has_weights: bool = True
    """False where a handle's weights have not been downloaded yet."""
    sequence_length: int | None = None
    """Of the preprocessor in the directory, where there is one."""
    add_start_token: bool = True
    """Whether that preprocessor puts BOS before a text."""
    add_end_token: bool = True
    """Whether it puts EOS behind a text to train on."""

    @property
    def architecture(self) -> Architecture:
        """Name of the architecture that the config describes."""
        return self.config.architecture

    def weights(self) -> WeightSource:
        """Open the arrays; those of a handle are downloaded first.

        Raises:
            PresetFileError: The files are not exactly the model of `config`.
        """
        preset = self.downloaded()
        if preset.form == "hf":
            return open_hf_weights(preset.directory, preset.config)
        return open_keras_weights(preset.directory, preset.config)

    def vocabulary(self) -> bytes | None:
        """Return the SentencePiece model, None where the directory has none."""
        has_vocabulary = self.form != "table" or self._has_vocabulary()
        preset = self if has_vocabulary else self._fetched(weights=False)
        name = HF_TOKENIZER_FILE if preset.form == "hf" else VOCABULARY_FILE
        return read_vocabulary(preset.directory, name, preset.config.vocabulary_size)

    def downloaded(self) -> Preset:
        """Return this preset with all its files on this machine.

        Raises:
            PresetFileError: The download fails, or brings another model.
        """
        return self if self.has_weights else self._fetched(weights=True)

    def _fetched(self, *, weights: bool) -> Preset:
        if self.handle is None:
            raise PresetFileError(
                self.name,
                expected="weights in the package",
                received=f"no {CONFIG_FILE} in {self.directory}",
                fix="build the model with random weights",
            )
        directory = handles.download(self.handle, weights=weights)
        found = open_directory(directory, name=self.name)
        if found.config != self.config:
            raise PresetFileError(
                self.handle,
                expected=f"the dimensions of {self.name}: {self.config}",
                received=found.config,
                fix="pass the handle or directory itself as the preset",
            )
        return dataclasses.replace(found, handle=self.handle, has_weights=weights)

    def _has_vocabulary(self) -> bool:
        directory = self.directory
        return directory is not None and (directory / VOCABULARY_FILE).exists()


def open_preset(preset: str) -> Preset:
    """Return the facts of a built-in name, a handle or a directory.

    Raises:
        PresetFileError: Nothing has this name, or what has it is no preset.
    """
    if preset in BUILT_IN:
        return _open_built_in(BUILT_IN[preset])
    if handles.is_handle(preset):
        for known in BUILT_IN.values():
            if known.handle == preset:
                return dataclasses.replace(_open_built_in(known), name=preset)
        found = open_directory(handles.download(preset, weights=False), name=preset)
        return dataclasses.replace(found, handle=preset, has_weights=False)
    directory = epath.Path(preset).expanduser()
    if directory.is_dir():
        return open_directory(directory)
    near = difflib.get_close_matches(preset, BUILT_IN, n=3, cutoff=0.5)
    raise PresetFileError(
        "preset",
        expected="a built-in name, a directory, or a kaggle:// or hf:// handle",
        received=repr(preset),
        fix=f"try {' or '.join(near)}" if near else f"names are {', '.join(BUILT_IN)}",
    )


def open_directory(directory: epath.Path, *, name: str | None = None) -> Preset:
    """Return the facts of a directory in KerasHub's or Hugging Face's form.

    Raises:
        PresetFileError: Its `config.json` is missing, of neither form or unsupported.
    """
    path = directory / CONFIG_FILE
    values = read_json(inside(directory, CONFIG_FILE))
    if "class_name" in values:
        config, dtype = read_config(path, values)
        form: Form = "keras"
        sequences = read_preprocessor(directory)
    elif "model_type" in values:
        config, dtype = read_hf_config(path, values)
        form, sequences = "hf", {}
    else:
        raise PresetFileError(
            path,
            expected="class_name (KerasHub) or model_type (Hugging Face)",
            received="neither",
            fix="use the directory of a preset in one of the two forms",
        )
    return Preset(
        name=name or str(directory),
        config=config,
        dtype=dtype,
        form=form,
        directory=directory,
        **sequences,
    )


def _open_built_in(facts: BuiltIn) -> Preset:
    directory = epath.Path(PACKAGE_DIRECTORY / facts.name)
    if (directory / CONFIG_FILE).exists():
        return open_directory(directory, name=facts.name)
    return Preset(
        name=facts.name,
        config=facts.config,
        dtype=facts.dtype,
        form="table",
        has_weights=False,
        directory=directory if facts.handle is None else None,
        handle=facts.handle,
    )
