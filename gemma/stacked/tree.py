"""The state tree: which variables of a backbone become which stacked array.

Turns a backbone, abstract or not, into a table of stacked variables. Layers of whole
periods of the attention pattern stand in `decoder_blocks/...`, what is left after the
last whole period in `decoder_blocks_rest/...`; the first dim is the layer, unsplit.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import keras

from gemma.backbones.backbone import Backbone
from gemma.config import AttentionKind, GemmaConfig

BLOCKS, REST = "decoder_blocks", "decoder_blocks_rest"


@dataclasses.dataclass(frozen=True)
class Stack:
    """Layers, one after the other, that one scan covers.

    Attributes:
        name: First part of the paths of its arrays.
        layers: Indices of its layers, in order.
        kinds: Kinds of attention in one scan step; divides the layers.
    """

    name: str
    layers: range
    kinds: tuple[AttentionKind, ...]

    @property
    def apart(self) -> list[range]:
        """Places of a scan step's layers, each alone."""
        return [range(k, k + 1) for k in range(len(self.kinds))]

    @property
    def stretches(self) -> list[range]:
        """Places of a scan step's layers, those of a kind in a row together."""
        found: list[range] = []
        for _, members in itertools.groupby(self.kinds):
            first = found[-1].stop if found else 0
            found.append(range(first, first + len(list(members))))
        return found


@dataclasses.dataclass(frozen=True)
class StackedVariable:
    """One array of the state tree and the variables that it stands for.

    Attributes:
        path: Its name in the tree.
        members: The variables, in the order of the first dim; a variable that is not
            part of a layer stands alone and is not stacked.
        is_stacked: Whether there is a first dim for layers.
    """

    path: str
    members: tuple[keras.Variable, ...]
    is_stacked: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape with the layers first."""
        shape = tuple(self.members[0].shape)
        return (len(self.members), *shape) if self.is_stacked else shape

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the variables."""
        return jnp.dtype(self.members[0].dtype)

    @property
    def is_adapter(self) -> bool:
        """Whether the variable is a factor of an adapter."""
        return "/lora_kernel_" in self.path


def should_scan_stretches(platform: str, *, is_frozen: bool) -> bool:
    """Return whether stretches of alike layers should be scans where remat allows it.

    For TPUs they compile sooner, and a step needs less memory: no layer's backward
    pass waits for another's. They copy the weights of a stretch, which makes the step
    of a CPU a tenth slower, and gradients of trained weights, which takes more memory
    than is won.
    """
    return platform == "tpu" and is_frozen


def stacks(config: GemmaConfig) -> list[Stack]:
    """Return the scans that cover all layers in order."""
    pattern = config.attention_pattern
    period = len(pattern)
    whole = config.num_layers // period * period
    found = [Stack(BLOCKS, range(whole), pattern)] if whole else []
    rest = range(whole, config.num_layers)
    if rest:
        # after whole periods come the first layers of the pattern; a scan step is
        # one layer where they are alike, all of them where they are not
        kinds = pattern[: len(rest)]
        alike = len(set(kinds)) == 1
        found.append(Stack(REST, rest, kinds[:1] if alike else kinds))
    return found


def stacked_tree(backbone: Backbone) -> dict[str, StackedVariable]:
    """Return the state tree of a backbone by path, in the order of its variables.

    Random states are left out: they belong to a step, not to the model.

    Raises:
        ValueError: The backbone has a variable that no array stands for. A model
            without values would run with random ones in its place.
    """
    tree = {}
    for variable in backbone.token_embedding.weights:
        tree[variable.path] = _single(variable)
    for stack in stacks(backbone.gemma_config):
        blocks = [backbone.blocks[layer] for layer in stack.layers]
        for names in zip(*(block_variables(block) for block in blocks), strict=True):
            path = f"{stack.name}/{names[0][0]}"
            members = tuple(variable for _, variable in names)
            tree[path] = StackedVariable(path, members, is_stacked=True)
    scale = backbone.get_layer("final_normalization").scale
    tree["final_normalization/scale"] = _single(scale)
    _check_whole(backbone, tree)
    return tree


def block_variables(
    block: keras.layers.Layer,
) -> Iterator[tuple[str, keras.Variable]]:
    """Yield a block's weights with their paths below the block."""
    for variable in block.weights:
        if not _is_random_state(variable):
            yield variable.path.split("/", 1)[1], variable


def stack_values(tree: dict[str, StackedVariable]) -> dict[str, jax.Array]:
    """Copy the values of a concrete backbone into stacked arrays."""
    return {
        path: jnp.stack([jnp.asarray(member.value) for member in stacked.members])
        if stacked.is_stacked
        else jnp.asarray(stacked.members[0].value)
        for path, stacked in tree.items()
    }


def apart_values(
    tree: dict[str, StackedVariable],
) -> dict[str, jax.Array | tuple[jax.Array, ...]]:
    """Return the values of a concrete backbone as they are, a tuple for the layers."""
    values = {
        path: tuple(jnp.asarray(member.value) for member in stacked.members)
        for path, stacked in tree.items()
    }
    return {p: v if tree[p].is_stacked else v[0] for p, v in values.items()}


def _check_whole(backbone: Backbone, tree: dict[str, StackedVariable]) -> None:
    covered = {id(v) for stacked in tree.values() for v in stacked.members}
    loose = [
        v.path
        for v in backbone.variables
        if id(v) not in covered and not _is_random_state(v)
    ]
    if loose:
        raise ValueError(
            "the state tree must cover every variable of the backbone, but has no "
            f"array for {', '.join(loose[:3])}"
        )


def _is_random_state(variable: keras.Variable) -> bool:
    return "seed_generator" in variable.path


def _single(variable: keras.Variable) -> StackedVariable:
    return StackedVariable(variable.path, (variable,), is_stacked=False)
