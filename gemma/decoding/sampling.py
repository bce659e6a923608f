"""How the next token is chosen: greedy, temperature, top-k, top-p, min-p.

Turns float32 logits into one id a row. Thresholds are found by bisection over the bits
of a float: exact, without sorting a vocabulary of 262,144, and their settings are
values of the program, so that other ones compile nothing. It refuses to know prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Settings of a draw; the filters apply in the order of their fields.

    Attributes:
        temperature: Logits are divided by it; 0 takes the likeliest token, whatever
            the filters say.
        top_k: Only the `top_k` likeliest tokens, and those equal to the last of them,
            may come; None keeps all.
        top_p: Only the fewest tokens whose probabilities reach `top_p` together, among
            what `top_k` left; 1 keeps all.
        min_p: Only tokens at least `min_p` times as probable as the likeliest; 0
            keeps all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature must be a number from 0, received {self.temperature!r}"
            )
        top_k = self.top_k
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k must be None or from 1, received {top_k!r}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must lie in (0, 1], received {self.top_p!r}")
        if not 0.0 <= self.min_p < 1.0:
            raise ValueError(f"min_p must lie in [0, 1), received {self.min_p!r}")

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0.0

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of what leaves tokens out; a program is compiled for each set."""
        off = {"top_k": None, "top_p": 1.0, "min_p": 0.0}
        return tuple(name for name, none in off.items() if getattr(self, name) != none)

    def values(self) -> SamplerValues:
        """Return the settings as values of a compiled program."""
        return SamplerValues(
            jnp.float32(self.temperature),
            jnp.int32(self.top_k or 0),
            jnp.float32(self.top_p),
            jnp.float32(self.min_p),
        )


class SamplerValues(NamedTuple):
    """A sampler's settings as scalars on a device."""

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array


GREEDY = Sampler(temperature=0.0)

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "greedy": GREEDY,
        "random": Sampler(),
        "top_k": Sampler(top_k=5),
        "top_p": Sampler(top_p=0.1),
        "min_p": Sampler(min_p=0.1),
    }
)
"""Samplers by name; those that KerasHub has too have its defaults."""


def sampler_named(name: str | Sampler) -> Sampler:
    """Return a sampler by its name, or itself.

    Raises:
        ValueError: There is no sampler of this name.
    """
    if isinstance(name, Sampler):
        return name
    if name not in SAMPLERS:
        raise ValueError(
            f"sampler must be a Sampler or one of {', '.join(SAMPLERS)}, "
            f"received {name!r}"
        )
    return SAMPLERS[name]


def likeliest(logits: jax.Array) -> jax.Array:
    """Return the first index of each row's largest value, int32 [batch].

    As `argmax`, which XLA:CPU computes one value at a time. Rows are reduced as
    columns, which is how the tied embedding gives them (`unembed`).
    """
    columns, size = logits.T, logits.shape[-1]
    index = jnp.arange(size, dtype="int32")[:, None]
    is_top = columns == columns.max(0)
    return jnp.minimum(jnp.where(is_top, index, size).min(0), size - 1)


def draw(
    logits: jax.Array,
    values: SamplerValues,
    keys: jax.Array,
    *,
    filters: tuple[str, ...],
) -> jax.Array:
    """Draw one id a row, int32 [batch].

    Args:
        logits: float32 [batch, vocabulary].
        values: The settings; those of filters that are not in use do nothing.
        keys: A random key for each row.
        filters: Which filters are in use.
    """
    logits = logits / values.temperature
    if "top_k" in filters:
        logits = _keep(logits, values.top_k, jnp.ones_like)
    if "top_p" in filters:
        logits = _keep(logits, values.top_p, jax.nn.softmax)
    if "min_p" in filters:
        least = logits.max(-1, keepdims=True) + jnp.log(values.min_p)
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    return jax.vmap(jax.random.categorical)(keys, logits).astype("int32")


def _keep(
    logits: jax.Array, least: jax.Array, weigh: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Keep the fewest top logits whose weights sum to `least`, -inf for the others.

    The threshold is built bit by bit from the highest: the largest number above or at
    which enough weight lies. Equal logits stay or go together.
    """
    order, weights = _sortable(logits), weigh(logits)

    def try_bit(bit: jax.Array, threshold: jax.Array) -> jax.Array:
        raised = threshold | (jnp.uint32(1) << (31 - bit).astype("uint32"))
        mass = jnp.where(order >= raised, weights, 0).sum(-1, keepdims=True)
        return jnp.where(mass >= least, raised, threshold)

    start = jnp.zeros((*logits.shape[:-1], 1), "uint32")
    threshold = jax.lax.fori_loop(0, 32, try_bit, start)
    return jnp.where(order >= threshold, logits, -jnp.inf)


def _sortable(x: jax.Array) -> jax.Array:
    """Map float32 to uint32 in the same order."""
    bits = jax.lax.bitcast_convert_type(x, "uint32")
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits & sign, ~bits, bits | sign)
