"""What the backward pass keeps of the forward pass, and what it computes again.

Turns a word into the `jax.checkpoint` of a scan step, and of a layer in a stretch of
alike ones within it. Arrays have names: the input of a layer, alone or in a stretch,
and each product with weights by the name of its projection. It refuses to know devices:
whether one has host memory to give is its caller's matter.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name

from gemma.lora import PROJECTIONS

Body = Callable[[jax.Array, object], tuple[jax.Array, None]]
Policy = Callable[..., object]
BLOCK_INPUT, STRETCH_INPUT = "block_input", "stretch_input"

_JAX = jax.checkpoint_policies
_OF_STEP: dict[str, Policy] = {
    "block": _JAX.save_only_these_names(STRETCH_INPUT),
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
CHOICES = ("none", *_OF_STEP)
"""`none` keeps all that the backward pass reads, without a checkpoint.

`block` keeps the input of each scan step, a whole period of layers; where stretches of
alike layers are scans, that of each layer. `attention` keeps the result of every
product with weights, adapters included, and computes again what lies between them:
norms, rotation, the activation and attention itself, from scores to mix. `offload`
keeps the input of each block, in the host's memory. The others are JAX's policies of
that name.
"""
BY_STRETCH = "block"
"""The choice under which stretches of layers may be scans. Products would be copied
once more, from the layers of a stretch to those of all steps; inputs in host memory
do not compile in a scan within a scan (libtpu 0.0.42)."""


def checkpointing(remat: str) -> Callable[[Body], Body]:
    """Return what makes a scan step keep and compute again as a word says.

    Raises:
        ValueError: The word is none of `CHOICES`.
    """
    if remat not in CHOICES:
        raise ValueError(
            f"remat must be one of {', '.join(CHOICES)}, received {remat!r}"
        )
    return _checkpointing(_OF_STEP.get(remat))


def checkpointing_layer(
    *, in_stretch: bool, after_stretch: bool
) -> Callable[[Body], Body]:
    """Return what does so for a layer of a scan step, whose input it names.

    Alone, a layer is computed again with its step. In a stretch of alike layers, which
    is a scan, it is so by itself, from its own input: JAX would keep all that its
    backward pass reads for every layer of it. What a stretch ends with is the input of
    the layer after it, and kept: all of it would be computed for that once more.
    """
    name = STRETCH_INPUT if in_stretch or after_stretch else BLOCK_INPUT
    wrap = _checkpointing(_JAX.nothing_saveable if in_stretch else None)

    def checkpointed(body: Body) -> Body:
        again = wrap(body)
        return lambda x, xs: again(checkpoint_name(x, name), xs)

    return checkpointed


def _checkpointing(policy: Policy | None) -> Callable[[Body], Body]:
    if policy is None:
        return lambda body: body
    # a scan's body is compiled once: nothing outside of it could be merged with it
    return lambda body: jax.checkpoint(body, policy=policy, prevent_cse=False)
