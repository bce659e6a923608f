"""What is kept for the backward pass: chosen by what fits, refused where it cannot."""

import math

import jax
import pytest

from gemma.stacked.remat import CHOICES as KEPT
from trainer.__main__ import compose
from trainer.config.errors import ConfigError
from trainer.config.limits import CHOICES
from trainer.tasks.planning.memory_plan import memory_plan
from trainer.tasks.session import assemble


def assembled(*words, memory=None):
    config = compose(["mesh=1x1", *words])
    return assemble(config, jax.devices()[:1], bytes_per_device=memory)


def planned(*words):
    parts = assembled(*words)
    return memory_plan(
        parts.config, parts.model.preset.config, parts.model.lora, platform="cpu"
    )


def test_the_key_knows_what_the_library_can_keep():
    assert CHOICES["trainer.remat"] == ("auto", *KEPT)


def test_auto_keeps_products_where_the_estimate_leaves_a_fifth():
    plan = planned("trainer.remat=attention")
    needed = plan.bytes_per_device((1, 1))
    enough = assembled(memory=math.ceil(needed / 0.8))
    assert enough.config.trainer.remat == "attention"
    too_little = assembled(memory=math.floor(0.99 * needed / 0.8))
    assert too_little.config.trainer.remat == "block"


def test_auto_keeps_the_least_where_the_memory_is_not_known():
    assert assembled().config.trainer.remat == "block"


@pytest.mark.parametrize("word", ["none", "block", "attention"])
def test_what_is_typed_is_kept_whatever_fits(word):
    found = assembled(f"trainer.remat={word}", memory=1)
    assert found.config.trainer.remat == word


def test_a_mesh_is_chosen_for_the_least_that_auto_can_keep():
    least = planned("trainer.remat=block").bytes_per_device((1, 1))
    assert planned().bytes_per_device((1, 1)) == least
    assert planned("trainer.remat=attention").bytes_per_device((1, 1)) > least


def test_a_cpu_has_no_host_to_offload_to():
    with pytest.raises(ConfigError) as refused:
        assembled("trainer.remat=offload")
    assert refused.value.key == "trainer.remat"
    assert "no memory beside pinned_host" in str(refused.value)
    assert refused.value.fix == "trainer.remat=block"


def test_without_a_backward_pass_every_choice_works():
    assert assembled("trainer.remat=offload", "task=evaluate").mesh.size == 1
