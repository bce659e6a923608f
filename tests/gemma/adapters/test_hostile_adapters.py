"""Adapters made to fill the memory are refused before their factors are read."""

import pathlib
import shutil
import tracemalloc

import h5py
import numpy as np
import pytest

from gemma.adapters import read_lora
from gemma.presets import PresetFileError, open_preset

GOLDEN = pathlib.Path(__file__).parents[2] / "golden/keras_hub/gemma3"
MAX_BYTES = 16 << 20  # four times less than the largest of them spells out
FACTOR = "lora/13/vars/lora_kernel_a"  # query of the first block


def refused(path, match):
    config = open_preset(str(GOLDEN)).config
    tracemalloc.start()
    try:
        with pytest.raises(PresetFileError, match=match):
            read_lora(path, config)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


@pytest.fixture
def adapter(tmp_path):
    return pathlib.Path(shutil.copy(GOLDEN / "adapter.lora.h5", tmp_path))


def of_another_shape(file):
    shape = (16 << 20,)
    file.create_dataset(FACTOR, shape, "f4", chunks=(1 << 20,), compression="gzip")
    part = np.zeros(1 << 20, "f4")
    part[: 1 << 12] = np.random.default_rng(0).random(1 << 12)
    for start in range(0, shape[0], len(part)):
        file[FACTOR][start : start + len(part)] = part


def of_a_huge_rank(file):
    del file["lora/vars/rank"]
    file["lora/vars/rank"] = 1 << 30
    file[FACTOR] = np.zeros((4, 48, 3), "f4")


def without_a_shape(file):
    file[FACTOR] = h5py.Empty("f4")


def of_integers(file):
    file[FACTOR] = np.ones((4, 48, 3), "i4")


HOSTILE = {
    of_another_shape: r"lora_kernel_a: expected shape .* received shape \(16777216,\)",
    of_a_huge_rank: r"expected shape .*1073741824\)",
    without_a_shape: "a dataset without a shape",
    of_integers: "expected floating point numbers, received dtype int32",
}


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_a_hostile_adapter_is_refused_without_reading_it(adapter, change):
    with h5py.File(adapter, "a") as file:
        del file[FACTOR]
        change(file)
    refused(adapter, HOSTILE[change])
