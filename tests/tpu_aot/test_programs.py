"""Steps compiled for eight v5e chips that are not here, most of them Gemma 2 9B's."""

import re

import pytest
from jax.experimental import topologies

from trainer.__main__ import compose
from trainer.tasks.program import step_program

pytestmark = pytest.mark.tpu_aot

GIB = 2**30
CHIP = 16 * GIB


def compiled(*words, topology="v5e:2x4"):
    described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    nine = ["preset=gemma2_9b_en", "preset.dtype=bfloat16", "mesh=1x8"]
    step = ["data.sequence_length=1024", "trainer.remat=block"]
    config = compose([*nine, *step, *words])
    return step_program(config, described.devices).lower().compile()


def total_bytes(program):
    memory = program.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )


def test_eight_sequences_need_five_gib_a_chip():
    assert total_bytes(compiled("trainer.global_batch_size=8")) < 5.0 * GIB


@pytest.fixture(scope="module")
def large():
    return compiled("trainer.global_batch_size=48")


def test_forty_eight_sequences_fit(large):
    assert total_bytes(large) < 0.9 * CHIP


def test_what_blocks_keep_is_split_over_the_sequence(large):
    text = large.as_text()
    assert "bf16[21,48,128,3584]" in text  # of 21 scan steps, an eighth of 1024 tokens
    assert "bf16[21,48,1024,3584]" not in text


def test_no_weight_of_a_layer_is_gathered(large):
    """`model` splits widths: only activations cross it."""
    found = re.findall(r"= \S*bf16\[([\d,]+)\]\S* all-gather\(", large.as_text())
    assert found and set(found) == {"48,1024,3584"}, set(found)


def test_offloaded_inputs_leave_the_chip():
    program = compiled("trainer.global_batch_size=48", "trainer.remat=offload")
    memory = program.memory_analysis()
    assert memory.host_temp_size_in_bytes >= 42 * 48 * 128 * 3584 * 2


def test_a_stretch_of_layers_is_compiled_once_and_keeps_inputs():
    words = ["preset=gemma3_4b_text", "mesh=2x4", "data.sequence_length=2048"]
    program = compiled(*words, "trainer.global_batch_size=8")
    assert total_bytes(program) < 2.5 * GIB  # 3.0 with layers apart
    assert "bf16[5,5,4,512,2560]" in program.as_text()
