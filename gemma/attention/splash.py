"""Attention by Pallas's splash kernels, for TPUs.

Turns queries, keys and values into the layout of the kernels, and a sight into their
lazy masks: blocks after a query and before its window are neither read nor computed.
It refuses to know meshes: what it gets is one device's part. Pallas has no other
compiler for these kernels; elsewhere they run in its interpreter, for tests.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from gemma.attention.scores import KEPT
from gemma.attention.sight import Sight

LANES = 128
"""Lengths are padded to its multiples: the width of a TPU's vector registers."""
_BLOCKS = (512, 384, 256, 128)  # 1024 of head_dim 256 exceed a v5e's vector memory


def attend_splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    sight: Sight,
    *,
    soft_cap: float | None,
    interpret: bool = False,
) -> jax.Array:
    """Attend as `gemma.attention.Attention`, in Pallas's interpreter or on a TPU."""
    length, heads = query.shape[1:3]
    rest = -length % LANES  # after the end, where nothing is seen from
    kernel = splash_kernel(
        length + rest,
        heads=heads,
        window=sight.window,
        soft_cap=soft_cap,
        interpret=interpret,
    )
    segments = None
    if sight.segments is not None:
        ends = (sight.segments, sight.of_keys())
        segments = splash.SegmentIds(*(_padded(x, rest) for x in ends))
    heads_first = [_padded(x, rest).swapaxes(1, 2) for x in (query, key, value)]
    mixed = jax.vmap(kernel)(*heads_first, segments).swapaxes(1, 2)[:, :length]
    if sight.key_segments is None:
        return mixed
    # the kernels give a query that sees nothing the mean of what is hidden from it
    sees = sight.mask(0, 0, queries=length, keys=length).any(-1)
    return jnp.where(sees[:, :, None, None], mixed, 0.0)


def splash_kernel(
    length: int,
    *,
    heads: int,
    window: int | None,
    soft_cap: float | None,
    interpret: bool,
) -> splash.SplashAttentionKernel:
    """Return the kernels of one sequence, with the lists of blocks that they visit."""
    return splash.make_splash_mha(
        splash.MultiHeadMask([_mask(length, window)] * heads),
        block_sizes=_block_sizes(length),
        attn_logits_soft_cap=soft_cap,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=KEPT,
        interpret=interpret,
    )


def _mask(length: int, window: int | None) -> splash.Mask:
    if window is None:
        return splash.CausalMask((length, length))
    return splash.LocalMask((length, length), window_size=(window - 1, 0), offset=0)


def _block_sizes(length: int) -> splash.BlockSizes:
    """Return the largest blocks that divide a length, the same for all kernels."""
    block = next(block for block in _BLOCKS if length % block == 0)
    return splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )


def _padded(x: jax.Array, rest: int) -> jax.Array:
    return jnp.pad(x, [(0, 0), (0, rest)] + [(0, 0)] * (x.ndim - 2)) if rest else x
