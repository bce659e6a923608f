"""How PEFT names the adapters of transformers' Gemma models.

Turns a layer of ours (`decoder_block_3/attention/query`) into a module
(`model.layers.3.self_attn.q_proj`) and a tensor's name into layer, module and factor.
It refuses to know what lies under a name.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence

from etils import epath

from gemma.config import GemmaConfig

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
SIDECAR_FILE = f"{WEIGHTS_FILE}.json"
"""Not `adapter.json`, which is the sidecar of an `adapter.lora.h5` beside it."""

MODULES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_output": "self_attn.o_proj",
    "ffw_gating": "mlp.gate_proj",
    "ffw_gating_2": "mlp.up_proj",
    "ffw_linear": "mlp.down_proj",
}
"""Our names of projections -> those of transformers, below a decoder layer."""

_PREFIX = "base_model.model."
# what stands before `layers` in a model of text alone, and in one that sees
_TENSOR = re.compile(
    r"base_model\.model\.(?P<module>"
    r"(?:(?:model\.)?(?:language_model\.)?(?:model\.)?)"
    r"(?P<end>layers\.\d{1,4}\.(?:self_attn|mlp)\.\w+))"
    r"\.lora_(?P<factor>[AB])(?:\.default)?\.weight"
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Which factor of which layer a tensor is."""

    layer: str
    """Ours."""
    module: str
    """PEFT's, which patterns of ranks and alphas are matched with."""
    factor: str
    """`A` or `B`."""


def is_peft_directory(path: os.PathLike[str] | str) -> bool:
    """Return whether `path` has PEFT's `adapter_config.json` in it."""
    return (epath.Path(path) / CONFIG_FILE).exists()


def module_name(projection: str) -> str:
    """Return the last part of a module's name, which `target_modules` lists."""
    return MODULES[projection].rsplit(".", 1)[1]


def projection_of(layer: str) -> str:
    """Return the name of a layer's projection."""
    return layer.rsplit("/", 1)[-1]


def layers_of(config: GemmaConfig, targets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield our layers that are targets, with their modules, in block order."""
    for path in config.parameter_shapes():
        layer, _, variable = path.rpartition("/")
        if variable == "kernel" and projection_of(layer) in targets:
            number = layer.split("/", 1)[0].rsplit("_", 1)[1]
            yield layer, f"model.layers.{number}.{MODULES[projection_of(layer)]}"


def tensor_name(module: str, factor: str) -> str:
    """Return the name under which PEFT stores factor `A` or `B` of a module."""
    return f"{_PREFIX}{module}.lora_{factor}.weight"


def places(config: GemmaConfig, tensors: Sequence[str]) -> dict[str, Place | None]:
    """Map the names of tensors to places in a model; None for what has none."""
    layers = {
        module.removeprefix("model."): layer
        for layer, module in layers_of(config, tuple(MODULES))
    }
    found: dict[str, Place | None] = {}
    for tensor in tensors:
        match = _TENSOR.fullmatch(tensor)
        layer = layers.get(match["end"]) if match else None
        found[tensor] = (
            Place(layer, match["module"], match["factor"]) if match and layer else None
        )
    return found
