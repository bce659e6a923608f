"""Queries, keys and values, what they see, and comparing two paths on them."""

import jax
import jax.numpy as jnp
import pytest

from gemma.attention import see
from gemma.attention.reference import attend_reference

RELATIVE = 3e-6  # float32 sums in another order, against the largest number


class Problem:
    """Random inputs of one shape, with a gradient to send back."""

    def __init__(self, length, *, batch=2, heads=4, kv_heads=2, head_dim=8):
        keys = jax.random.split(jax.random.key(0), 4)
        shapes = [(batch, length, n, head_dim) for n in (heads, kv_heads, kv_heads)]
        self.inputs = [
            jax.random.normal(key, shape)
            for key, shape in zip(keys[:3], shapes, strict=True)
        ]
        self.upstream = jax.random.normal(keys[3], shapes[0])
        self.batch, self.length = batch, length

    def segments(self, *borders):
        """Return ids that go up at each border, the same in every sequence."""
        places = jnp.arange(self.length)
        ids = sum((places >= border).astype("int32") for border in borders)
        return jnp.broadcast_to(ids, (self.batch, self.length))

    def run(self, path, sight, soft_cap=None, inputs=None):
        """Return the mix and its gradients for queries, keys and values."""

        @jax.jit
        def both(inputs, arrays):
            seen = sight._replace(segments=arrays[0], key_segments=arrays[1])
            mixed, back = jax.vjp(lambda *x: path(*x, seen, soft_cap=soft_cap), *inputs)
            return mixed, *back(self.upstream.astype(mixed.dtype))

        return both(inputs or self.inputs, sight[1:])


@pytest.fixture(scope="session")
def problem():
    return Problem


@pytest.fixture(scope="session")
def same_as_reference():
    """Check that a path gives the reference's mix and gradients."""

    def check(path, problem, sight, soft_cap=None, relative=RELATIVE):
        got = problem.run(path, sight, soft_cap)
        want = problem.run(attend_reference, sight, soft_cap)
        for a, b in zip(got, want, strict=True):
            assert jnp.abs(a - b).max() <= relative * jnp.abs(b).max()

    return check


@pytest.fixture(scope="session")
def sights():
    """Return what is seen in each situation that training and generation know."""

    def build(problem):
        length = problem.length
        rows = problem.segments(length // 5, length // 2)
        left = jnp.arange(length)[None] >= jnp.array([[0], [length // 3]])
        return {
            "global": see(),
            "local": see(window=length // 3),
            "packed": see(segment_ids=rows),
            "packed local": see(window=length // 4, segment_ids=rows),
            "padded": see(window=length // 3, padding_mask=left),
            "packed and padded": see(segment_ids=rows, padding_mask=left),
        }

    return build


@pytest.fixture(
    params=[
        ("global", None),
        ("local", 2.0),
        ("packed", 2.0),
        ("packed local", None),
        ("padded", 2.0),
        ("packed and padded", None),
    ],
    ids=lambda param: param[0],
)
def situation(request):
    """Name of a sight, and a soft cap: together every feature with every other."""
    return request.param
