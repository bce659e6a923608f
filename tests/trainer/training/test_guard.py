"""What counts as a spike, on losses and norms of which the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.training import guard


def start(updates=0):
    slots = {name: jnp.zeros(s.shape, s.dtype) for name, s in SLOTS.items()}
    return slots | {"iteration": jnp.int32(updates)}


SLOTS = guard.recent_slots()


def filled(loss, norm, updates):
    """Slots after `updates` steps that alternate around a loss and a norm by 1."""
    signs = jnp.where(jnp.arange(guard.WINDOW_UPDATES) < updates, 1.0, 0.0)
    signs = signs * jnp.tile(jnp.array([1.0, -1.0]), guard.WINDOW_UPDATES // 2)
    known = jnp.abs(signs)
    recent = {guard.LOSS: known * loss + signs, guard.GRAD_NORM: known * norm + signs}
    return recent | {"iteration": jnp.int32(updates)}


@pytest.mark.parametrize("updates", [64, 100, 128, 1000])
@pytest.mark.parametrize(
    ("loss", "norm", "usual"),
    [(25.9, 55.9, True), (26.1, 50.0, False), (20.0, 56.1, False), (0.0, 0.0, True)],
)
def test_a_spike_is_so_many_deviations_above_the_mean(updates, loss, norm, usual):
    numbers = {guard.LOSS: jnp.float32(loss), guard.GRAD_NORM: jnp.float32(norm)}
    found = guard.is_usual(numbers, filled(20.0, 50.0, updates), deviations=6.0)
    assert bool(found) is usual


def test_nothing_is_a_spike_while_little_is_known():
    numbers = dict.fromkeys(SLOTS, jnp.float32(1e9))
    assert guard.is_usual(numbers, filled(20.0, 50.0, 63), deviations=6.0)
    assert not guard.is_usual(numbers, filled(20.0, 50.0, 64), deviations=6.0)


def test_the_oldest_number_gives_way():
    slots = start(updates=130)
    numbers = dict.fromkeys(SLOTS, jnp.float32(7.0))
    found = guard.remember(numbers, slots)
    assert np.flatnonzero(found[guard.LOSS]).tolist() == [2]
    assert np.flatnonzero(found[guard.GRAD_NORM]).tolist() == [2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_enough(bad):
    assert guard.is_finite(jnp.float32(1.0), jnp.float32(2.0))
    assert not guard.is_finite(jnp.float32(1.0), jnp.float32(bad))


def test_twenty_planted_spikes_are_found_and_clean_steps_are_not():
    """At most one false alarm in 10,000 steps of a falling, noisy loss."""
    random, steps = np.random.default_rng(0), 10_000
    planted = np.arange(500, steps, 500)[:20]
    falling = 1.0 + 2.0 * np.exp(-np.arange(steps) / 2000)
    losses = falling * (1 + 0.05 * random.standard_normal(steps))
    norms = 0.5 * np.exp(0.15 * random.standard_normal(steps))
    losses[planted[::2]] *= 10
    norms[planted[1::2]] *= 10

    def body(slots, numbers):
        usual = guard.is_usual(numbers, slots, deviations=6.0)
        after = guard.remember(numbers, slots) | {"iteration": slots["iteration"] + 1}
        return jax.tree.map(lambda a, b: jnp.where(usual, a, b), after, slots), usual

    rows = {guard.LOSS: losses, guard.GRAD_NORM: norms}
    rows = {name: jnp.asarray(values, "float32") for name, values in rows.items()}
    _, usual = jax.jit(lambda s, r: jax.lax.scan(body, s, r))(start(), rows)
    skipped = np.flatnonzero(~np.asarray(usual))
    assert set(planted) <= set(skipped)
    assert len(skipped) <= len(planted) + 1
