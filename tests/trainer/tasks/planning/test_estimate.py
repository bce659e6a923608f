import json
from pathlib import Path

import pytest

from trainer.__main__ import compose
from trainer.config.topology import planned_topology
from trainer.tasks.planning.chips import undescribed
from trainer.tasks.planning.preparing import prepare

CLOSE = 0.10  # of the total, as the compiler tells it


COMMITTED = Path(__file__).resolve().parents[3] / "golden" / "plan_cases.json"
CASES = json.loads(COMMITTED.read_text())["cases"]


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_close_to_what_the_compiler_said(name):
    known = CASES[name]
    config = compose(["task=plan", *known["words"]])
    planned = prepare(config, undescribed(planned_topology(config)))
    estimate = planned.memory.estimate(planned.shape)
    assert estimate.state == known["state_bytes"]
    assert estimate.total == pytest.approx(known["total_bytes_per_device"], rel=CLOSE)
