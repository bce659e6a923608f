"""The stacked forward: one scan over layers, for training and whole texts.

Turns token ids and the arrays of a state tree into hidden states. Blocks of the Keras
model serve as templates whose variables are replaced in each scan step, so that the
model has one definition; a test holds this equal to the model's own call.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import keras

from gemma.attention import Attention
from gemma.backbones.backbone import Backbone
from gemma.layers.attention import Cache, KeysAndValues
from gemma.layers.decoder_block import (
    Constraint,
    GemmaDecoderBlock,
    unconstrained,
)
from gemma.quantized.array import Table
from gemma.stacked.remat import BY_STRETCH, checkpointing, checkpointing_layer
from gemma.stacked.tree import Stack, block_variables, stacked_tree, stacks

Weights = Mapping[str, jax.Array | tuple[jax.Array, ...]]
"""By path of the state tree: stacked over layers, or apart, a tuple of the layers'.

Training takes stacked arrays. Generation (`gemma.stacked.cached`) takes both: apart, it
compiles every layer for itself and reads the variables of a Keras model as they are.
"""
LayerWeights = dict[str, jax.Array | tuple[jax.Array, ...]]
"""Weights by their path below a block: of one scan step, [layers of the step, ...]; of
one layer without that dim."""


def _same_weight(path: str, x: jax.Array) -> jax.Array:
    return x


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constraints:
    """Sharding constraints that the caller's mesh asks for; none by default.

    Attributes:
        activation: On hidden states, after the embedding and every block.
        enter: On hidden states that enter a block's products or the loss.
        leave: On what a block's products add to hidden states.
        embedding: On the embedding table, once; on both parts of a quantized one.
        looked_up: On its rows as they were looked up, before `activation`.
        weight: On one layer's weight in the scan body; gets its path and value.
    """

    activation: Constraint = unconstrained
    enter: Constraint = unconstrained
    leave: Constraint = unconstrained
    embedding: Constraint = unconstrained
    looked_up: Constraint = unconstrained
    weight: Callable[[str, jax.Array], jax.Array] = _same_weight


class Stacked:
    """The pure functions of one backbone over its state tree's arrays."""

    def __init__(
        self,
        backbone: Backbone,
        constraints: Constraints | None = None,
        attend: Attention | None = None,
        *,
        scans_stretches: bool = False,
    ) -> None:
        """Bind the functions.

        Args:
            backbone: Model whose blocks are the templates.
            constraints: Of the caller's mesh.
            attend: How tokens attend to each other on the caller's devices; None: as
                suits the device that JAX runs on.
            scans_stretches: Compile alike layers in a row once; what to choose says
                `should_scan_stretches`.
        """
        self.backbone = backbone
        self.config = backbone.gemma_config
        self.tree = stacked_tree(backbone)
        self.constraints = constraints or Constraints()
        self.attend, self.scans_stretches = attend, scans_stretches
        self.stacks = stacks(self.config)

    def hidden(
        self,
        weights: Weights,
        token_ids: jax.Array,
        *,
        positions: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        padding_mask: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
        remat: str = "none",
    ) -> jax.Array:
        """Return the hidden states after the final norm, [batch, seq, hidden].

        Args:
            weights: An array for every path of the tree.
            token_ids: int32 [batch, seq].
            positions: int32 [batch, seq]; 0, 1, 2, ... by default.
            segment_ids: int32 [batch, seq]; attention stays within equal ids.
            padding_mask: [batch, seq], false where keys are padding.
            dropout_key: Turns dropout on; every layer draws its own.
            remat: What the backward pass computes again, one of
                `gemma.stacked.remat.CHOICES`.

        Raises:
            ValueError: A weight is missing or left over, or `remat` is no choice.
        """
        checkpointed = checkpointing(remat)
        x = self.start(weights, token_ids)
        inputs = {
            "positions": positions,
            "segment_ids": segment_ids,
            "padding_mask": padding_mask,
        }
        for stack in self.stacks:
            step = functools.partial(self._run_step, stack, inputs, remat)
            body = checkpointed(step)
            seeds = _layer_seeds(dropout_key, stack)
            x, _ = jax.lax.scan(body, x, (self.layered(weights, stack), seeds))
        return self.finish(weights, x)

    def table(self, weights: Weights) -> Table:
        """Return the embedding, a quantized one as its parts, under the constraint."""
        quantized = self.backbone.token_embedding.quantized
        if quantized is None:
            return self.constraints.embedding(weights["token_embedding/embeddings"])
        parts = (weights[quantized.values.path], weights[quantized.scales.path])
        return quantized.array(*map(self.constraints.embedding, parts))

    def _run_step(
        self,
        stack: Stack,
        inputs: dict[str, jax.Array | None],
        remat: str,
        x: jax.Array,
        xs: tuple[LayerWeights, jax.Array | None],
    ) -> tuple[jax.Array, None]:
        """Run the layers of one scan step, each with its own seed.

        A stretch of alike layers may be a scan of its own, compiled once.
        """
        by_stretch = self.scans_stretches and remat == BY_STRETCH
        in_stretch = False
        for places in stack.stretches if by_stretch else stack.apart:
            after_stretch, in_stretch = in_stretch, len(places) > 1
            one = functools.partial(self._run_layer, stack, places[0], inputs)
            one = checkpointing_layer(
                in_stretch=in_stretch, after_stretch=after_stretch
            )(one)
            if in_stretch:
                of_stretch = _part(xs, slice(places.start, places.stop))
                x, _ = jax.lax.scan(one, x, of_stretch)
            else:
                x, _ = one(x, _part(xs, places[0]))
        return x, None

    def _run_layer(
        self,
        stack: Stack,
        k: int,
        inputs: dict[str, jax.Array | None],
        x: jax.Array,
        xs: tuple[LayerWeights, jax.Array | None],
    ) -> tuple[jax.Array, None]:
        weights, seed = xs
        return self.run_block(stack, k, weights, x, seed=seed, **inputs)[0], None

    def start(self, weights: Weights, token_ids: jax.Array) -> jax.Array:
        """Return the scaled embeddings of ids [batch, seq]; checks the weights."""
        self._check(weights)
        dtype = self.backbone.dtype_policy.compute_dtype
        x = self.constraints.looked_up(self.table(weights)[token_ids]).astype(dtype)
        x = x * jnp.asarray(self.config.hidden_dim**0.5, dtype)
        return self.constraints.activation(x)

    def finish(self, weights: Weights, x: jax.Array) -> jax.Array:
        """Return the hidden states after the final norm."""
        norm = self.backbone.get_layer("final_normalization")
        mapping = [(norm.scale, weights["final_normalization/scale"])]
        with keras.StatelessScope(state_mapping=mapping, initialize_variables=False):
            return self.constraints.enter(norm(x))

    def run_block(
        self,
        stack: Stack,
        k: int,
        weights: LayerWeights,
        x: jax.Array,
        *,
        seed: jax.Array | None = None,
        **inputs: jax.Array | Cache | None,
    ) -> tuple[jax.Array, KeysAndValues]:
        """Run layer `k` of a scan step, with the stack's k-th block as template.

        Args:
            stack: Whose scan it is.
            k: The layer's place in the step.
            weights: Of this layer.
            x: Hidden states [batch, seq, hidden].
            seed: Turns dropout on.
            **inputs: As `GemmaDecoderBlock.step` takes them.
        """
        block = self.backbone.blocks[stack.layers[k]]
        mapping = self._mapping(block, stack, weights)
        if seed is not None and block.seed_generator is not None:
            mapping.append((block.seed_generator.state, seed))
        scope = keras.StatelessScope(state_mapping=mapping, initialize_variables=False)
        with scope:
            x, cache = block.step(
                x,
                attend=self.attend,
                training=seed is not None,
                enter=self.constraints.enter,
                leave=self.constraints.leave,
                **inputs,
            )
        return self.constraints.activation(x), cache

    def _mapping(
        self, block: GemmaDecoderBlock, stack: Stack, weights: LayerWeights
    ) -> list[tuple[keras.Variable, jax.Array]]:
        """Pair every variable of the template with its value in this layer."""
        constrain = self.constraints.weight
        return [
            (variable, constrain(f"{stack.name}/{name}", weights[name]))
            for name, variable in block_variables(block)
        ]

    def layered(
        self, weights: Weights, stack: Stack
    ) -> LayerWeights | list[LayerWeights]:
        """Return a stack's weights as [scan steps, layers of a step, ...].

        Where the layers' weights are apart, return a list of the scan steps' weights.
        """
        prefix, period = stack.name + "/", len(stack.kinds)
        steps = len(stack.layers) // period
        layers = {
            path.removeprefix(prefix): weight
            for path, weight in weights.items()
            if path.startswith(prefix)
        }
        if any(isinstance(weight, tuple) for weight in layers.values()):
            return [
                {p: w[i * period : (i + 1) * period] for p, w in layers.items()}
                for i in range(steps)
            ]
        return {p: w.reshape(steps, period, *w.shape[1:]) for p, w in layers.items()}

    def _check(self, weights: Weights) -> None:
        if missing := self.tree.keys() - weights.keys():
            raise ValueError(
                f"weights must hold all {len(self.tree)} arrays of the state tree, "
                f"received none for {', '.join(sorted(missing)[:3])}"
            )
        if foreign := weights.keys() - self.tree.keys():
            raise ValueError(
                f"weights must hold only the {len(self.tree)} arrays of the state "
                f"tree, received also {', '.join(sorted(foreign)[:3])}"
            )


def layers_of(weights: LayerWeights, which: int | slice) -> LayerWeights:
    """Return the weights of one layer, or of several, of a scan step."""
    return {path: weight[which] for path, weight in weights.items()}


def _part(
    xs: tuple[LayerWeights, jax.Array | None], which: int | slice
) -> tuple[LayerWeights, jax.Array | None]:
    weights, seeds = xs
    return layers_of(weights, which), None if seeds is None else seeds[which]


def _layer_seeds(key: jax.Array | None, stack: Stack) -> jax.Array | None:
    """Return a seed a layer, uint32 [scan steps, layers of a step, 2].

    Keras counts up from a seed with every draw, so neighbouring seeds would repeat
    each other's draws: they are folded instead.
    """
    if key is None:
        return None
    layers = jnp.asarray(list(stack.layers))
    fold = jax.vmap(lambda layer: jax.random.key_data(jax.random.fold_in(key, layer)))
    steps = len(stack.layers) // len(stack.kinds)
    return fold(layers).reshape(steps, len(stack.kinds), 2)
