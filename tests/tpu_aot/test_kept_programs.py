"""A step that is kept as StableHLO, compiled for chips that are not here."""

import functools

import jax
import pytest
from jax import export
from jax.experimental import topologies

from trainer.__main__ import compose
from trainer.tasks import kept_programs
from trainer.tasks.compiled_programs import keep_compiled_programs
from trainer.tasks.program import kept_step, step_program

pytestmark = [pytest.mark.tpu_aot, pytest.mark.usefixtures("own_cache")]

WORDS = ["preset=gemma2_2b_en", "preset.dtype=bfloat16", "mesh=2x4"]
STEP = ["data.sequence_length=512", "trainer.global_batch_size=8"]
SIZES = ("argument", "output", "alias", "temp", "generated_code")


def facts(lowered):
    """Return how large a program is and where its results lie."""
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    sizes = {name: getattr(memory, f"{name}_size_in_bytes") for name in SIZES}
    return sizes, jax.tree.leaves(compiled.output_shardings)


def test_a_kept_step_is_the_traced_one_to_the_byte(tmp_path, monkeypatch):
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    for_tpu = functools.partial(export.export, platforms=["tpu"])
    monkeypatch.setattr(kept_programs.export, "export", for_tpu)
    keep_compiled_programs(str(tmp_path), print)

    program = step_program(compose([*WORDS, *STEP]), topology.devices)
    arguments = program.arguments()
    traced = facts(program.lower())
    for _ in range(2):  # written, then read
        kept = kept_step(program.parts, program.optimizer)
        found = kept._for(arguments, {})
        assert found is not kept._function
        assert facts(found.lower(*arguments)) == traced
    assert len(list(tmp_path.rglob("*.stablehlo"))) == 1
