import jax
import pytest

from trainer.__main__ import compose
from trainer.tasks.planning.compiling import compile_program, refused_bytes
from trainer.tasks.program import step_program

GIB = 2**30

# What libtpu 0.0.42 answered to an array of 200 GiB on v5e, and to a step on v5e:2x4
TEMPORARIES = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (912.00G) exceeds available HBM (15.75G)."
)
USED = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
    "space hbm. Used 16.83G of 15.75G hbm. Exceeded hbm capacity by 1.08G."
)


@pytest.mark.parametrize(
    ("message", "total"),
    [
        (TEMPORARIES, 915 * GIB),
        (USED, round(16.83 * GIB)),
        ("RESOURCE_EXHAUSTED: no number here", None),
    ],
)
def test_a_refusal_tells_the_bytes(message, total):
    assert refused_bytes(message, 3 * GIB) == total


def test_a_compiled_step_tells_bytes_and_collectives():
    config = compose(["mesh=1x2", "preset=gemma2_tiny_en"])
    program = step_program(config, jax.devices()[:2])
    found = compile_program(program)
    assert found.fits
    assert found.compiler.startswith("jaxlib 0.")
    state = sum(
        x.dtype.itemsize * x.size // 2  # most of it is split over two devices
        for x in jax.tree.leaves(program.arguments()[:2])
    )
    assert state < found.total < 1 * GIB
    reduced = [c for c in found.collectives if c.kind == "all-reduce"]
    assert reduced and reduced[0].devices == 2
    # 4 layers, 2 sums forward, 2 again with remat, 2 or more back
    assert reduced[0].count >= 4 * 6
