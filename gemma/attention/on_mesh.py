"""Attention on a mesh: every device gets its sequences and its heads, and no more.

Turns a path that knows one device into one for all of a mesh, through `jax.shard_map`,
so that kernels and loops run without a collective among them. It refuses to know what
the path does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from gemma.attention.sight import Sight

Path = Callable[[jax.Array, jax.Array, jax.Array, Sight], jax.Array]


def split_over(
    mesh: Mesh,
    path: Path,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    sight: Sight,
) -> jax.Array:
    """Attend with the batch split over the mesh's first axis and heads over its second.

    What does not divide stays whole: where key/value heads do not but queries do, each
    device takes those of its own queries.
    """
    batch_axis, head_axis = mesh.axis_names
    heads, kv_heads = query.shape[2], key.shape[2]
    on_batch = batch_axis if query.shape[0] % mesh.shape[batch_axis] == 0 else None
    on_heads = head_axis if heads % mesh.shape[head_axis] == 0 else None
    on_kv_heads = head_axis if kv_heads % mesh.shape[head_axis] == 0 else None

    def attend(
        query: jax.Array, key: jax.Array, value: jax.Array, segments: tuple
    ) -> jax.Array:
        if on_heads and not on_kv_heads:
            own = functools.partial(
                _own_heads,
                groups=heads // kv_heads,
                heads=query.shape[2],
                device=jax.lax.axis_index(head_axis),
            )
            key, value = own(key), own(value)
        return path(query, key, value, Sight(sight.window, *segments))

    of_queries = PartitionSpec(on_batch, None, on_heads)
    of_keys = PartitionSpec(on_batch, None, on_kv_heads)
    return jax.shard_map(
        attend,
        mesh=mesh,
        in_specs=(of_queries, of_keys, of_keys, PartitionSpec(on_batch)),
        out_specs=of_queries,
        check_vma=False,  # Pallas calls of JAX 0.10 do not say what they vary over
    )(query, key, value, (sight.segments, sight.key_segments))


def _own_heads(
    x: jax.Array, *, groups: int, heads: int, device: jax.Array
) -> jax.Array:
    """Return the key/value heads of one device's query heads.

    Args:
        x: [batch, seq, kv_heads, head_dim], all heads.
        groups: Query heads that share a key/value head.
        heads: Query heads of a device.
        device: int32 [], index of the device along the heads.
    """
    if groups % heads == 0:
        return jax.lax.dynamic_slice_in_dim(x, device * heads // groups, 1, axis=2)
    own = (device * heads + jnp.arange(heads)) // groups
    return jnp.take(x, own, axis=2)
