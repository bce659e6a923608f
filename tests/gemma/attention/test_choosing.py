"""Which path is taken where, and what is said where none can be."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import pytest

from gemma.attention import Attention, Facts, Target, Unfit, choose, see
from gemma.attention.blocked import attend_blocked
from gemma.attention.cudnn import attend_cudnn

CPU, TPU = Target("cpu"), Target("tpu")
GPU, HOPPER = Target("gpu"), Target("gpu", largest_fused_head_dim=256)
GEMMA2 = {"head_dim": 256, "soft_cap": 50.0, "dtype": "bfloat16", "has_segments": True}
GEMMA3 = GEMMA2 | {"soft_cap": None}
ALONE = GEMMA3 | {"has_segments": False}


@pytest.mark.parametrize(
    ("target", "facts", "path"),
    [
        (CPU, ALONE, "blocked"),
        (TPU, GEMMA2, "splash"),
        (TPU, GEMMA2 | {"length": 64}, "blocked"),
        (HOPPER, GEMMA2, "blocked"),
        (HOPPER, GEMMA3, "blocked"),
        (HOPPER, ALONE, "cudnn"),
        (GPU, ALONE, "blocked"),
        (GPU, ALONE | {"head_dim": 128}, "cudnn"),
        (HOPPER, ALONE | {"dtype": "float32"}, "blocked"),
        (Target("metal"), ALONE, "blocked"),
    ],
)
def test_auto_takes_what_the_device_has(target, facts, path):
    assert choose("auto", target, Facts(**facts)) == path


@pytest.mark.parametrize("target", [CPU, GPU, TPU])
@pytest.mark.parametrize("choice", ["reference", "blocked"])
def test_plain_xla_runs_everywhere(target, choice):
    assert choose(choice, target, Facts(**GEMMA2)) == choice


@pytest.mark.parametrize(
    ("choice", "target", "facts", "message"),
    [
        ("splash", CPU, GEMMA2, "splash needs a TPU and this program is for a cpu"),
        ("cudnn", TPU, ALONE, "needs an NVIDIA GPU and this program is for a tpu"),
        ("cudnn", HOPPER, GEMMA2, "no soft cap and this model has one of 50"),
        ("cudnn", HOPPER, GEMMA3, "keeps no rows or padding of a sequence apart"),
        ("cudnn", HOPPER, ALONE | {"dtype": "float32"}, "computes in float32"),
        ("cudnn", GPU, ALONE, "a head_dim of at most 128 that 8 divides"),
    ],
)
def test_an_impossible_choice_names_the_reason_and_the_nearest(
    choice, target, facts, message
):
    with pytest.raises(Unfit, match=message) as caught:
        choose(choice, target, Facts(**facts))
    nearest = "splash" if target is TPU else "blocked"
    assert caught.value.nearest == nearest
    assert f"attention={nearest} works here" in str(caught.value)


def test_an_unknown_choice_is_named():
    with pytest.raises(ValueError, match="one of .*'blocked'.* received 'flash'"):
        choose("flash", CPU, Facts(**ALONE))


def test_attention_refuses_when_it_is_called():
    x = jnp.zeros((1, 4, 1, 8))
    with pytest.raises(Unfit, match="needs a TPU"):
        Attention(choice="splash")(x, x, x, see(), soft_cap=None)


def chosen(attend, sight):
    """Return the function that would run, and what it is told to see."""
    x = jnp.zeros((1, 256, 1, 64), "bfloat16")
    path, seen = attend._path(x, sight, None)
    while isinstance(path, functools.partial):
        path = path.func
    return path, seen


def test_segments_are_left_out_for_a_kernel_where_each_sequence_has_one_row():
    sight = see(segment_ids=jnp.zeros((1, 256), "int32"))
    for choice in ("cudnn", "auto"):
        attend = Attention(choice=choice, target=GPU, one_row_each=True)
        assert chosen(attend, sight) == (attend_cudnn, see())


def test_prompts_with_padding_are_attended_to_under_every_choice():
    padded = see(padding_mask=jnp.ones((1, 256)))
    for choice in ("cudnn", "auto"):
        attend = Attention(choice=choice, target=GPU, one_row_each=True)
        assert chosen(attend, padded) == (attend_blocked, padded)


def test_what_auto_takes_for_packed_rows_on_a_gpu_lowers_for_cuda():
    """The program is plain StableHLO: nothing of it is bound to this machine."""
    attend = Attention(target=HOPPER)

    def gradient(x, segments):
        def loss(x):
            return attend(x, x, x, see(512, segments), soft_cap=50.0).sum()

        return jax.grad(loss)(x)

    x = jax.ShapeDtypeStruct((2, 1024, 2, 64), "bfloat16")
    segments = jax.ShapeDtypeStruct((2, 1024), "int32")
    exported = jax.export.export(jax.jit(gradient), platforms=["cuda"])(x, segments)
    assert exported.platforms == ("cuda",)
    assert "stablehlo.custom_call" not in exported.mlir_module()
