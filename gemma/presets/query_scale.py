"""A scale of the query that KerasHub has no name for, moved into the weights.

Turns a config with `query_pre_attn_scalar` and its arrays into one without, which
computes the same. It refuses to know files.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from gemma.config import GemmaConfig
from gemma.presets.shards import Arrays


def fold_query_scale(config: GemmaConfig, arrays: Arrays) -> tuple[GemmaConfig, Arrays]:
    """Return a config that scales queries by `head_dim`, and arrays that fit it.

    KerasHub takes any argument and ignores this one: it would compute another model
    from the file without a word. Queries are linear in the kernel, or in the norm's
    factor 1 + scale where they are normalised; rotation and soft cap come after.
    """
    scalar = config.query_pre_attn_scalar
    if scalar is None:
        return config, arrays
    factor = np.float32(math.sqrt(config.head_dim / scalar))

    def folded(path: str) -> np.ndarray:
        values = np.asarray(arrays(path))
        if config.use_query_key_norm:
            if path.endswith("/attention/query_norm/scale"):
                return (1 + values.astype(np.float32)) * factor - 1
        elif path.endswith("/attention/query/kernel"):
            return values.astype(np.float32) * factor
        return values

    plain = dataclasses.replace(
        config, query_pre_attn_scalar=None, query_head_dim_normalize=True
    )
    return plain, folded
