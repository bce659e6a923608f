"""Two processes read and encode a part of the rows each, and train as one does."""

import json
import re
from pathlib import Path

import pytest

COUNTING = Path(__file__).parent / "counting.py"
ROWS = 40
WORDS = (
    "data=jsonl",
    "data.pack_window_rows=16",
    "trainer.num_train_steps=20",
)
SAME_LOSS = 1e-5  # relative: sums in float32 in another order
# half of a window to learn its lengths, and half of the rest for the own sequences; the
# first rows, which every process measures for the screen, are on top
MOST = 0.85


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_processes_encode_less_than_one_and_learn_the_same(starter, tmp_path):
    file = tmp_path / "rows.jsonl"
    sea = "the sea lies in the bay "
    texts = [{"prompt": sea * (n % 3), "response": f"row {n}"} for n in range(1, ROWS)]
    file.write_text(
        "".join(json.dumps(text) + "\n" for text in texts if text["prompt"])
    )
    words = [*WORDS, f"data.path={file}"]
    two = start(starter, [*words, "run.name=two", "mesh=2x1"], processes=2)
    one = start(starter, [*words, "run.name=one", "mesh=1x1"], processes=1)
    assert two.wait(120) == [0, 0], two.everything()
    assert one.wait(120) == [0], one.everything()
    expected = starter.losses("one")
    assert len(expected) == 20
    assert starter.losses("two") == pytest.approx(expected, rel=SAME_LOSS)
    alone = rows_read(one, 0)
    assert max(rows_read(two, index) for index in two.indices) < MOST * alone


def start(starter, words, *, processes):
    return starter.start([words], processes=processes, worker=COUNTING)


def rows_read(group, index):
    return int(re.search(r"rows read: (\d+)", group.said(index))[1])
