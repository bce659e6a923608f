"""Which class of backbone computes which architecture: a fixed table.

Turns a `GemmaConfig` into the class that takes its mapping. No file and no name in a
file chooses a class.
"""

from __future__ import annotations

from gemma.backbones.backbone import Backbone
from gemma.backbones.gemma3_backbone import Gemma3Backbone
from gemma.backbones.gemma_backbone import GemmaBackbone
from gemma.config import Architecture, GemmaConfig

BACKBONES: dict[Architecture, type[Backbone]] = {
    "gemma": GemmaBackbone,
    "gemma3": Gemma3Backbone,
}


def backbone_class(config: GemmaConfig) -> type[Backbone]:
    """Return the class to be called with `**config.to_mapping()`."""
    return BACKBONES[config.architecture]
