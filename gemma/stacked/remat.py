"""What the backward pass keeps of the forward pass, and what it computes again.

Turns a word into the `jax.checkpoint` of a scan step. Names of arrays are those of the
decoder block: its input, and each product with weights by the name of its projection.
It refuses to know devices: whether one has host memory to give is its caller's matter.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from gemma.layers.decoder_block import BLOCK_INPUT
from gemma.lora import PROJECTIONS

Body = Callable[[jax.Array, object], tuple[jax.Array, None]]
Policy = Callable[..., object]

_JAX = jax.checkpoint_policies
_POLICIES: dict[str, Policy | None] = {
    "block": None,
    "attention": _JAX.save_only_these_names(*PROJECTIONS),
    "offload": _JAX.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[BLOCK_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "dots_saveable": _JAX.dots_saveable,
    "dots_with_no_batch_dims_saveable": _JAX.dots_with_no_batch_dims_saveable,
}
CHOICES = ("none", *_POLICIES)
"""`none` keeps all that the backward pass reads, without a checkpoint.

`block` keeps the input of each scan step, a whole period of layers. `attention` keeps
the result of every product with weights, adapters included, and computes again what
lies between them: norms, rotation, the activation and attention itself, from scores to
mix. `offload` keeps the input of each block, in the host's memory. The others are
JAX's policies of that name, over a scan step.
"""


def checkpointing(remat: str) -> Callable[[Body], Body]:
    """Return what makes a scan's body keep and compute again as a word says.

    Raises:
        ValueError: The word is none of `CHOICES`.
    """
    if remat not in CHOICES:
        raise ValueError(
            f"remat must be one of {', '.join(CHOICES)}, received {remat!r}"
        )
    if remat == "none":
        return lambda body: body
    # a scan's body is compiled once: nothing outside of it could be merged with it
    return lambda body: jax.checkpoint(body, policy=_POLICIES[remat], prevent_cse=False)
