"""Plans of real presets, compiled for TPUs that are not there."""

import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.tpu_aot, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).resolve().parents[2]
COMMITTED = json.loads((REPOSITORY / "tests/golden/plan_cases.json").read_text())
ONE_OF_A_KIND = ["lora_2b", "full_2b", "int4_27b"]
"""`plan_cases.py` compiles all of them again, which takes a quarter of an hour."""
SAME_PROGRAM = 0.02  # another release of libtpu schedules otherwise
MOST_SECONDS, MOST_GB = 120, 3.0  # of the whole command; a processor's, not a clock's


@pytest.fixture(scope="module")
def cases():
    path = REPOSITORY / "tests/benchmarks/plan_cases.py"
    spec = importlib.util.spec_from_file_location("plan_cases", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_a_program_needs_what_was_committed(cases, name):
    known = COMMITTED["cases"][name]
    assert known["words"] == cases.words_of(cases.CASES[name])
    found = cases.compiled(known["words"])
    assert found["fits"] == known["fits"]
    assert found["state_bytes"] == known["state_bytes"]
    assert found["total_bytes_per_device"] == pytest.approx(
        known["total_bytes_per_device"], rel=SAME_PROGRAM
    )
    assert found["processor_seconds"] <= MOST_SECONDS
    assert found["peak_gb"] <= MOST_GB
