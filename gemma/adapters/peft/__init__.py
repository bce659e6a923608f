"""Adapters in PEFT's directory, `adapter_config.json` with `adapter_model.safetensors`.

Turns our factors into what `peft.PeftModel.from_pretrained` loads onto the
transformers model of the same weights, and back. `adapter_model.safetensors.json` says
what PEFT has no place for: the hash of the base, and whether the rank is made of heads.

Source: files written by peft 0.21 for transformers 5.23's Gemma models.
"""

from gemma.adapters.peft.names import is_peft_directory
from gemma.adapters.peft.reading import read_peft
from gemma.adapters.peft.writing import write_peft

__all__ = ["is_peft_directory", "read_peft", "write_peft"]
