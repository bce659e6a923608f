import dataclasses
import math

import pytest

from gemma.adapters.factors import factor_shapes
from gemma.layout import table
from gemma.lora import lora_settings
from gemma.presets import BUILT_IN
from tests.trainer.memory_plans import plan_of
from trainer.model import vocabulary_tiles, working_memory

GIB = 2**30
EVERY_MESH = [(2**i, 2**j) for i in range(5) for j in range(5)]


@pytest.mark.parametrize("factorisation", ["keras", "shared"])
def test_adapters_are_counted_to_the_byte(factorisation):
    lora = lora_settings(8, targets=["*"], factorisation=factorisation)
    plan = plan_of("gemma2_2b_en", lora=lora)
    shapes = factor_shapes(
        plan.config, rank=8, targets=lora.targets, factorisation=factorisation
    )
    count = sum(map(math.prod, shapes.values()))
    assert plan.estimate((1, 1)).adapters == 4 * count


@pytest.mark.parametrize("mesh", [(1, 8), (2, 4), (16, 16)])
def test_weights_are_those_of_the_layout_to_the_byte(mesh):
    plan = plan_of("gemma2_9b_en")
    found = plan.estimate(mesh)
    layout = table(plan.config, mesh, dtype="bfloat16", lora=plan.lora)
    assert found.weights + found.adapters == layout.bytes_per_device


def test_all_weights_are_trained_in_float32():
    found = plan_of("gemma2_2b_en", lora=None).estimate((1, 1))
    assert found.weights == 4 * plan_of("gemma2_2b_en").config.parameter_count
    assert found.adapters == 0
    assert found.gradients == found.weights


def test_the_parts_make_the_total():
    plan = plan_of("gemma3_1b", slot_bytes=lambda layout: 7)
    found = plan.estimate((2, 4))
    assert found.optimizer == 7
    assert found.state == found.weights + found.adapters + 7
    parts = (found.state, found.gradients, found.activations, found.loss)
    assert found.total == sum(parts) == plan.bytes_per_device((2, 4))


def test_several_microbatches_keep_a_sum_beside_the_gradient():
    once, twice = (plan_of("gemma_2b_en", microbatches=n) for n in (1, 2))
    sums = twice.estimate((1, 1)).gradients - once.estimate((1, 1)).gradients
    assert sums == once.estimate((1, 1)).adapters


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_preset_is_estimated_on_every_mesh(name):
    plan = plan_of(name)
    totals = {mesh: plan.bytes_per_device(mesh) for mesh in EVERY_MESH}
    assert all(total > 0 for total in totals.values())
    assert totals[16, 16] < totals[1, 1]
    assert totals[16, 1] < totals[1, 1] > totals[1, 16]


def test_every_mesh_up_to_256_chips_is_estimated():
    config = dataclasses.replace(BUILT_IN["gemma3_270m"].config, num_layers=7)
    plan = plan_of("gemma3_270m", config=config, microbatch_size=720)
    shapes = [(batch, model) for batch in range(1, 17) for model in range(1, 17)]
    totals = [plan.bytes_per_device(shape) for shape in shapes]
    assert max(totals) == totals[0]
    assert min(totals) > 0


@pytest.mark.parametrize(
    "grown",
    [
        {"microbatch_size": 32},
        {"sequence_length": 2048},
        {"remat": "none"},
        {"lora": None},
    ],
)
def test_what_costs_memory_is_estimated_to(grown):
    mesh = (2, 4)
    less = plan_of("gemma2_9b_en").bytes_per_device(mesh)
    assert plan_of("gemma2_9b_en", **grown).bytes_per_device(mesh) > 1.05 * less


def test_gemma2_9b_fits_eight_chips_of_v5e():
    plan = plan_of("gemma2_9b_en", microbatch_size=8)
    assert 9_241_705_984 * 2 / 8 < plan.bytes_per_device((1, 8)) < 15.75 * GIB


def test_what_is_kept_less_of_needs_less():
    words = ("none", "attention", "block", "offload")
    totals = [
        plan_of("gemma2_9b_en", remat=word).bytes_per_device((1, 8)) for word in words
    ]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(totals)


def test_the_loss_is_estimated_for_the_tiles_that_it_takes():
    assert working_memory.LARGEST_TILE == vocabulary_tiles.TILE


def test_sequences_that_the_model_axis_splits_are_kept_once():
    split = plan_of("gemma2_9b_en", sequence_length=1024).estimate((1, 8))
    whole = plan_of("gemma2_9b_en", sequence_length=1020).estimate((1, 8))
    kept = 21 * 16 * 1020 * 3584 * 2  # inputs of 21 pairs of layers, bfloat16
    assert whole.activations - split.activations > 0.8 * kept * 7 / 8


def test_scores_are_kept_off_the_memory_by_a_kernel_and_in_blocks_elsewhere():
    found = [
        plan_of("gemma2_2b_en", attention=path, sequence_length=4096)
        for path in ("splash", "blocked", "reference")
    ]
    totals = [plan.bytes_per_device((8, 1)) for plan in found]
    assert totals == sorted(totals)
    scores = 2 * 8 * 4096**2 * 4  # two sequences and eight heads a device, float32
    assert totals[2] - totals[1] > scores
