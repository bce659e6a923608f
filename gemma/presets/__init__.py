"""Presets: names, directories and handles, opened as facts and arrays.

Knows the files of KerasHub and Hugging Face and nothing of Keras, JAX or devices.
"""

from gemma.presets.directory import FORM_FILES, UNFINISHED
from gemma.presets.errors import PresetFileError
from gemma.presets.hf_writing import write_hf
from gemma.presets.mapping import aligned_empty
from gemma.presets.opening import Preset, open_directory, open_preset
from gemma.presets.source import WeightSource, check_each_once, check_whole
from gemma.presets.table import BUILT_IN, BuiltIn
from gemma.presets.writing import write_preset

__all__ = [
    "BUILT_IN",
    "FORM_FILES",
    "UNFINISHED",
    "BuiltIn",
    "Preset",
    "PresetFileError",
    "WeightSource",
    "aligned_empty",
    "check_each_once",
    "check_whole",
    "open_directory",
    "open_preset",
    "write_hf",
    "write_preset",
]
