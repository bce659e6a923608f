"""The paths of a GPU against the reference, on a GPU: none has run there yet."""

import jax
import jax.numpy as jnp
import pytest

from gemma.attention import Attention, Target, see
from gemma.attention.reference import attend_reference

pytestmark = pytest.mark.gpu

BFLOAT16 = 2e-2  # of the largest number: 8 bits of mantissa, sums in float32
GPU = Target("gpu")


@pytest.mark.parametrize(
    ("choice", "window", "soft_cap", "is_packed"),
    [
        ("cudnn", None, None, False),
        ("cudnn", 200, None, False),
        ("blocked", 200, 50.0, True),
        ("auto", None, None, True),
    ],
)
def test_bfloat16_keeps_to_the_float32_reference(
    problem, choice, window, soft_cap, is_packed
):
    given = problem(768, heads=4, kv_heads=2, head_dim=128)
    sight = see(window, given.segments(100, 500) if is_packed else None)
    short = [x.astype("bfloat16") for x in given.inputs]
    long = [x.astype("float32") for x in short]
    with jax.default_matmul_precision("highest"):
        want = given.run(attend_reference, sight, soft_cap, inputs=long)
    attend = Attention(choice=choice, target=GPU)
    got = given.run(attend, sight, soft_cap, inputs=short)
    for a, b in zip(got, want, strict=True):
        assert jnp.abs(a.astype("float32") - b).max() <= BFLOAT16 * jnp.abs(b).max()
