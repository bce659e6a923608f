import pytest

from trainer.__main__ import compose
from trainer.tasks.planning.explain import explain_memory
from trainer.tasks.planning.plan import Largest
from trainer.tasks.planning.telling import largest_steps, size, verdict

GIB = 2**30


def test_a_run_out_of_memory_is_told_what_it_needs_and_what_would_need_less():
    config = compose(["preset=gemma2_9b_en", "mesh=8x1", "data.sequence_length=1024"])
    table, advice = explain_memory(
        config, num_devices=8, platform="tpu", bytes_per_device=4 * GIB
    )
    lines = [line.split() for line in table.splitlines()]
    assert [line[0] for line in lines][:3] == ["weights", "adapters", "optimizer"]
    # 9,241,705,984 weights of 2 bytes over 8 chips
    assert lines[0][1:] == ["2.15", "GiB"]
    assert lines[-1][:2] == ["in", "all"]
    assert any(line.startswith("preset.quantize=") for line in advice)
    assert all("GiB a device, " in line for line in advice)


def test_advice_is_given_where_the_memory_is_not_known():
    config = compose(["preset=gemma2_2b_en", "mesh=1x1", "trainer.remat=none"])
    table, advice = explain_memory(
        config, num_devices=1, platform="gpu", bytes_per_device=None
    )
    assert "headroom" not in table
    assert any(line.startswith("trainer.remat=") for line in advice)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (7, "7 B"),
        (2048, "2.00 KiB"),
        (3 * 2**20, "3.00 MiB"),
        (5 * GIB // 2, "2.50 GiB"),
        (-GIB, "-1.00 GiB"),
    ],
)
def test_bytes_are_told_in_a_unit_that_suits_them(count, text):
    assert size(count) == text


def test_memory_that_nobody_knows_is_not_judged():
    assert "whose memory is not known" in verdict(True, GIB, None)


def test_where_not_even_the_smallest_step_fits_none_does():
    found = largest_steps(Largest(microbatch_size=0, sequence_length=3328))
    assert found == {
        "microbatch_size": "none, estimated",
        "sequence_length": "3,328 in the microbatch above, estimated",
    }
