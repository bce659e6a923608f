"""What is minimised of a position: cross-entropy, and what is added to it.

Turns the normaliser, the label's logit and the mean logit of a position into the loss
that is minimised and the plain one, and says how the first changes with each. It
refuses to know where these numbers come from.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossTerms:
    """Coefficients of what is minimised; without any it is the cross-entropy.

    With Z the logarithm of the softmax's sum, a position costs
    `Z - (1 - s) label's logit - s mean logit + z Z^2`.

    Attributes:
        vocabulary_size: Entries over which smoothing spreads.
        z_loss: z, the pull of Z to 0, which keeps logits from drifting.
        label_smoothing: s, the share of the target that is spread evenly over the
            whole vocabulary.

    Source: Szegedy et al. 2015, arXiv 1512.00567, section 7 (smoothing); Chowdhery et
    al. 2022, arXiv 2204.02311, section 5 (z-loss).
    """

    vocabulary_size: int
    z_loss: float = 0.0
    label_smoothing: float = 0.0

    @property
    def label_share(self) -> float:
        """Share of the target that the label keeps beside its even part."""
        return 1.0 - self.label_smoothing

    def normaliser_slope(self, normaliser: jax.Array) -> jax.Array:
        """Return how the minimised loss changes with Z."""
        if not self.z_loss:
            return jnp.ones_like(normaliser)
        return 1.0 + 2.0 * self.z_loss * normaliser


def minimised_loss(
    terms: LossTerms,
    normaliser: jax.Array,
    picked: jax.Array,
    level: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Return the minimised and the plain loss of each position, in nats.

    Args:
        terms: What is minimised.
        normaliser: log(sum(exp(logits))).
        picked: The label's logit.
        level: Mean of the logits; None without smoothing.
    """
    plain = minimised = normaliser - picked
    if level is not None:
        minimised = normaliser - terms.label_share * picked
        minimised -= terms.label_smoothing * level
    if terms.z_loss:
        minimised += terms.z_loss * jnp.square(normaliser)
    return minimised, plain
