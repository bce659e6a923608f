"""The page of the start, from invented seconds."""

import importlib.util
import sys

import pytest

from tests.benchmarks.invented import MACHINE


@pytest.fixture(scope="module")
def start(repository):
    path = repository / "tests/benchmarks/start.py"
    spec = importlib.util.spec_from_file_location("start_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_ratios_are_medians_within_rounds(start):
    rounds = [
        {"compiled": 12.0, "kept": 4.0, "keras_hub": 8.0, "other_cores": 1.0},
        {"compiled": 20.0, "kept": 4.0, "keras_hub": 10.0, "other_cores": 0.0},
        {"compiled": 40.0, "kept": 10.0, "keras_hub": 30.0, "other_cores": None},
    ]
    page = start.report(MACHINE, rounds)
    assert "| the first start, which compiles | 20.0 | 12.0 to 40.0 | 4.0 |" in page
    assert "| the second, with kept programs | 4.0 | 4.0 to 10.0 | 1.0 |" in page
    assert "| KerasHub, its import alone | 10.0 | 8.0 to 30.0 | 2.5 |" in page
    assert "Other work kept 0.5 cores busy." in page


def test_a_peer_that_is_not_at_hand_has_no_row(start):
    page = start.report(MACHINE, [{"compiled": 12.0, "kept": 4.0, "other_cores": None}])
    assert "KerasHub" not in page and "Other work" not in page


def test_another_job_is_told_without_its_place_on_this_machine(start):
    rounds = [{"compiled": 12.0, "kept": 4.0, "other_cores": None}]
    page = start.report(MACHINE, rounds, ["preset.name=/home/me/it", "lora.rank=4"])
    assert "num_train_steps=1 preset.name=DIR lora.rank=4`" in page
