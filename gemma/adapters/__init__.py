"""Adapters on disk: KerasHub's `.lora.h5` with a sidecar, and PEFT's directory.

Knows files, names and numbers, and nothing of Keras, layers or training.
"""

from gemma.adapters.base import base_hash
from gemma.adapters.factors import FACTOR_A, FACTOR_B, factor_shapes
from gemma.adapters.files import Adapter, read_lora, write_lora
from gemma.adapters.peft import is_peft_directory, read_peft, write_peft
from gemma.adapters.sidecar import SUFFIX, sidecar_path

__all__ = [
    "FACTOR_A",
    "FACTOR_B",
    "SUFFIX",
    "Adapter",
    "base_hash",
    "factor_shapes",
    "is_peft_directory",
    "read_lora",
    "read_peft",
    "sidecar_path",
    "write_lora",
    "write_peft",
]
