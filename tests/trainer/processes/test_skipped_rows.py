"""Several processes skip, record and go back alike, each with a part of the rows."""

import pytest

from tests.trainer.training.planting import BYTE_ID, poison, write_planted
from trainer.tracking import read_events, read_metrics

BATCH, PLANTED = 4, (2, 7, 8)


@pytest.mark.timeout(180)
def test_two_processes_skip_the_same_steps_and_go_back_together(starter):
    golden = starter.repository / "tests/golden/keras_hub/gemma2"
    preset = poison(golden, starter.root / "poisoned", token_id=BYTE_ID)
    path = starter.root / "planted.jsonl"
    write_planted(path, 15, batch=BATCH, bad=PLANTED)  # rows of the second process
    words = (
        *("run.name=planted", f"preset.name={preset}", "mesh=2x1"),
        *("data=jsonl", f"data.path={path}", "data.pack=false", "data.shuffle=false"),
        *(f"trainer.global_batch_size={BATCH}", "trainer.num_train_steps=7"),
        *("checkpoint.every_steps=4", "trainer.max_skipped_steps=2"),
        "trainer.rewind=true",
    )
    group = starter.start([*words], processes=2)
    assert group.wait(120) == [0, 0], group.everything()
    run = starter.root / "planted"
    events = read_events(run, "skipped")
    assert [(e["step"], e["skipped_steps"]) for e in events] == [(3, 1), (7, 2), (7, 3)]
    lines = [[int(row.rpartition(":")[2]) for row in e["rows"]] for e in events]
    assert lines == [
        [batch * BATCH + row + 1 for row in range(BATCH)] for batch in PLANTED
    ]
    assert [(e["from"], e["to"]) for e in read_events(run, "rewound")] == [(6, 4)]
    seen = [m["train/rows_seen"] for m in read_metrics(run)]
    assert seen == [BATCH * step for step in range(1, 8)]
