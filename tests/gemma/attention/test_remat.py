"""A remat policy can keep what attention needs, by name."""

import functools

import jax
import jax.numpy as jnp
import pytest

from gemma.attention import KEPT, see
from gemma.attention.blocked import attend_blocked
from gemma.attention.whole import attend_whole


def times(path, length, operation, policy):
    """Count an operation in the program of a gradient under a policy."""
    attend = functools.partial(path, sight=see(), soft_cap=None)
    body = jax.checkpoint(lambda x: attend(x, x, x) * 2.0, policy=policy)
    shape = jax.ShapeDtypeStruct((1, length, 1, 8), "float32")
    program = jax.make_jaxpr(jax.grad(lambda x: jnp.sin(body(jnp.sin(x))).sum()))
    return str(program(shape)).count(operation)


@pytest.mark.parametrize(
    ("path", "length", "operation"),
    [
        (attend_whole, 16, " exp "),
        (functools.partial(attend_blocked, largest_block=16), 64, " scan["),
    ],
    ids=["whole", "blocked"],
)
def test_a_policy_that_saves_the_name_attends_once(path, length, operation):
    """Forward and backward; without the name forward twice. For splash: tpu_aot."""
    saves = jax.checkpoint_policies.save_only_these_names(KEPT)
    assert times(path, length, operation, policy=None) == 3
    assert times(path, length, operation, policy=saves) == 2
