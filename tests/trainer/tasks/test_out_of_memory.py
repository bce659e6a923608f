"""Memory that runs out: a real allocation that fails, and what its user reads."""

import resource
import subprocess
import sys

import jax

from trainer.config.errors import SMALLER_STEP
from trainer.tasks.out_of_memory import is_out_of_memory, out_of_memory

ADDRESS_SPACE = 5 * 2**30  # JAX alone maps 2 GiB, a layer's scores want 4


def test_a_step_that_is_too_large_ends_with_the_plans_table(runs):
    words = runs.overrides(
        "trainer.global_batch_size=64",
        "data.sequence_length=2048",
        "trainer.attention=reference",
        "trainer.remat=none",
        "trainer.num_train_steps=1",
        "trainer.eval_every_steps=0",
        "trainer.sample_prompts=0",
        "run.name=large",
        "mesh=1x1",
        "device.simulated=1",
    )
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *words],
        cwd=runs.repository,
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE)
        ),
    )
    assert done.returncode == 5, done.stderr[-2000:]
    assert done.stderr.startswith("out of memory (exit code 5)")
    assert len(done.stderr.splitlines()) < 30  # one screen, no dump
    for shown in ("weights", "adapters", "optimizer", "gradients", "activations"):
        assert shown in done.stderr
    assert "trainer.remat=block" in done.stderr or "microbatch_size=" in done.stderr


def test_only_what_says_so_is_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 byte"))
    assert not is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: a bug"))
    assert not is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))


def test_the_allocators_first_line_is_kept_and_the_others_are_not(runs):
    dump = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 bytes\nBFC dump\nchunk")
    told = out_of_memory(dump, runs.config("run.name=x")).message()
    assert "RESOURCE_EXHAUSTED: 9 bytes" in told and "BFC" not in told
    assert "activations" in told


def test_without_a_model_there_is_still_advice(runs, tmp_path):
    config = runs.config("run.name=x", f"preset.name={tmp_path}")
    error = out_of_memory(MemoryError(), config)
    assert error.exit_code == 5
    assert error.received == "no memory left"
    assert error.fix == SMALLER_STEP
