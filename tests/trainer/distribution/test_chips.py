"""The table of chips: complete for what can be planned, found by JAX's names."""

import jax
import pytest

from trainer.config.topology import NVIDIA, TPU_SHAPES
from trainer.distribution.chips import CHIPS, chip_of


def test_every_chip_that_can_be_planned_has_a_row():
    assert set(CHIPS) == {*TPU_SHAPES, *NVIDIA}


# kinds as libtpu and the CUDA runtime spell them
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
    ],
)
def test_a_device_is_found_by_the_kind_that_jax_gives_it(kind, name):
    assert chip_of(kind).name == name


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA H100 PCIe", "TPU v5p2", ""])
def test_a_kind_that_is_not_in_the_table_has_no_peak(kind):
    assert chip_of(kind) is None


def test_the_cpu_of_the_tests_has_no_peak():
    assert chip_of(jax.devices()[0].device_kind) is None


def test_figures_are_those_of_the_data_sheets():
    v5e, h100 = CHIPS["v5e"], CHIPS["h100"]
    assert v5e.peak_flops_per_second == 197e12
    assert v5e.memory_bytes == 17_179_869_184
    assert v5e.memory_bytes_per_second == 819e9
    assert v5e.interconnect_bytes_per_second == 400e9
    assert h100.peak_flops_per_second == 989.4e12


@pytest.mark.parametrize(
    ("name", "mebibytes"),
    [
        ("a100", 40960),
        ("a100-80gb", 81920),
        ("h100", 81559),
        ("h200", 143771),
        ("b200", 183359),
        ("l4", 23034),
        ("l40s", 46068),
    ],
)
def test_memory_of_nvidias_chips_is_what_their_driver_tells(name, mebibytes):
    assert CHIPS[name].memory_bytes == mebibytes * 2**20


def test_no_chip_turns_a_byte_into_more_than_600_operations():
    # a slip of a unit in the table would stand out: the ratios lie between 130 and 600
    for chip in CHIPS.values():
        ratio = chip.peak_flops_per_second / chip.memory_bytes_per_second
        assert 130 < ratio < 600, chip.name
