"""A preset of the golden one's kind and vocabulary with larger dimensions."""

import dataclasses

import numpy as np

from gemma.abstract import build_abstract
from gemma.backbones.families import backbone_class
from gemma.presets import open_preset, write_preset


def write_larger(source, directory, **sizes):
    """Write random weights in float32; return how many bytes they are."""
    small = open_preset(str(source))
    config = dataclasses.replace(small.config, **sizes)
    backbone = build_abstract(
        lambda: backbone_class(config)(**config.to_mapping(), dtype="float32")
    )
    shapes = {v.path: tuple(v.shape) for v in backbone.variables}
    draw = np.random.default_rng(0).standard_normal
    write_preset(
        directory,
        config=config,
        dtype="float32",
        arrays=lambda path: 0.02 * draw(shapes[path], dtype=np.float32),
        vocabulary=small.vocabulary(),
    )
    return config.parameter_count * 4
