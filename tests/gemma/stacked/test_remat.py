"""What is kept for the backward pass changes its memory and none of its numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals

from gemma.lora import PROJECTIONS
from gemma.stacked import Stacked
from gemma.stacked.remat import CHOICES, checkpointing
from gemma.stacked.tree import should_scan_stretches, stack_values

X = jnp.ones((3, 12, 32))
SAME = 1e-5  # float32 on a CPU, sums in another order


def functions_of(backbone):
    stacked = Stacked(backbone, scans_stretches=True)
    return stacked, stack_values(stacked.tree)


@pytest.fixture(scope="module")
def model(build):
    """Four layers of Gemma 2: two scan steps of a local and a global layer."""
    return functions_of(build("gemma2", 4))


@pytest.fixture(scope="module")
def with_stretches(build):
    """Fourteen of Gemma 3: two steps of five local and a global layer, two more."""
    return functions_of(build("gemma3", 14))


@pytest.fixture(scope="module", params=["model", "with_stretches"])
def gradients(request, batch):
    stacked, weights = request.getfixturevalue(request.param)

    def of(remat):
        def loss(weights):
            hidden = stacked.hidden(weights, **batch, remat=remat)
            return jnp.square(hidden).mean()

        return jax.jit(jax.grad(loss))(weights)

    return of


@pytest.fixture(scope="module")
def kept_all(gradients):
    return gradients("none")


@pytest.mark.parametrize("remat", CHOICES[1:])
def test_no_choice_changes_a_gradient(gradients, kept_all, remat):
    for path, gradient in gradients(remat).items():
        np.testing.assert_allclose(
            gradient, kept_all[path], atol=SAME, rtol=SAME, err_msg=path
        )


@pytest.fixture
def kept(capsys):
    """Return what one scan step keeps beside its arguments, a line each."""
    inputs = {"positions": None, "segment_ids": None, "padding_mask": None}

    def lines(model, remat):
        stacked, weights = model
        stack = stacked.stacks[0]
        step = {p: w[0] for p, w in stacked.layered(weights, stack).items()}
        body = checkpointing(remat)(
            lambda x, xs: stacked._run_step(stack, inputs, remat, x, xs)
        )
        print_saved_residuals(lambda x: body(x, (step, None))[0].sum(), X)
        found = capsys.readouterr().out.splitlines()
        return [line for line in found if "from a constant" not in line]  # weights

    return lines


def test_block_keeps_nothing_but_its_input(kept, model):
    assert kept(model, "block") == ["f32[3,12,32] from the argument x"]


def test_block_keeps_the_input_of_each_layer_of_a_stretch(kept, with_stretches):
    shapes = [line.split(" ")[0] for line in kept(with_stretches, "block")]
    assert shapes == ["f32[5,3,12,32]", "f32[3,12,32]"]  # the step's own is among them


def test_attention_keeps_the_products_and_no_scores(kept, model):
    first, *others = [line.split(" from ")[0] for line in kept(model, "attention")]
    products = [
        "f32[3,12,4,8] named 'query'",
        "f32[3,12,2,8] named 'key'",
        "f32[3,12,2,8] named 'value'",
        "f32[3,12,32] named 'attention_output'",
        "f32[3,12,48] named 'ffw_gating'",
        "f32[3,12,48] named 'ffw_gating_2'",
        "f32[3,12,32] named 'ffw_linear'",
    ]
    assert first == "f32[3,12,32]"
    assert others == 2 * products


@pytest.fixture
def blocks(batch):
    """Return how often a block stands in the programs of a loss and its gradient."""

    def count(model, remat):
        stacked, weights = model

        def loss(weights):
            return stacked.hidden(weights, **batch, remat=remat).sum()

        programs = (jax.make_jaxpr(f)(weights) for f in (loss, jax.grad(loss)))
        return [str(program).count("name=ffw_gating_2") for program in programs]

    return count


def test_layers_of_a_stretch_are_compiled_once_for_each_pass(
    blocks, model, with_stretches
):
    assert blocks(model, "none") == [2, 2]
    assert blocks(model, "block") == [2, 2 * 2]
    assert blocks(with_stretches, "none") == [6 + 1, 6 + 1]
    assert blocks(with_stretches, "block") == [2 + 1, 2 * (2 + 1)]
    for remat in ("attention", "offload"):
        assert blocks(with_stretches, remat)[0] == 6 + 1


def test_stretches_are_scans_for_tpus_whose_weights_are_frozen(blocks, with_stretches):
    stacked, weights = with_stretches
    apart = Stacked(stacked.backbone)
    assert blocks((apart, weights), "block") == [6 + 1, 2 * (6 + 1)]
    assert should_scan_stretches("tpu", is_frozen=True)
    assert not should_scan_stretches("tpu", is_frozen=False)
    assert not should_scan_stretches("cpu", is_frozen=True)


def test_offload_keeps_the_inputs_of_blocks_in_host_memory(model, batch):
    stacked, weights = model
    gradient = jax.grad(lambda w: stacked.hidden(w, **batch, remat="offload").sum())
    text = str(jax.make_jaxpr(gradient)(weights))
    moved = set(re.findall(r"<host>\[([0-9,]+)\]", text))
    assert moved == {"3,12,32", "2,3,12,32"}  # one, and those of both scan steps


def test_names_are_those_of_projections(model, batch):
    stacked, weights = model
    text = str(jax.make_jaxpr(stacked.hidden)(weights, batch["token_ids"]))
    assert all(f"name[name={name}]" in text for name in (*PROJECTIONS, "block_input"))


def test_an_unknown_choice_is_refused(model, batch):
    stacked, weights = model
    with pytest.raises(ValueError, match="one of none, block, .*, received 'full'"):
        stacked.hidden(weights, **batch, remat="full")
