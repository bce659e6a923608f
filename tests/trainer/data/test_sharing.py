"""Processes that share the encoding of windows build what one alone would build."""

import dataclasses
import itertools
import json
import threading

import numpy as np
import pytest

from trainer.config.errors import DataError
from trainer.config.schema import ColumnsConfig
from trainer.data.jsonl import open_jsonl
from trainer.data.lengths import lengths_to_come
from trainer.data.sources import Share, check_rows

WORDS = ["sea", "sky", "oak", "elm", "fox", "owl", "bee"]
COUNT = 3  # processes


def rows_of(kind):
    if kind == "texts":
        return [{"text": " ".join(WORDS * (n % 9 + 1))} for n in range(40)]
    return [
        {"prompt": " ".join(WORDS[: n % 7 + 1]), "response": f"row {n}."}
        for n in range(40)
    ]


class Table:
    """What processes tell each other, each of them a thread here."""

    def __init__(self):
        self.told = {}
        self.all_here = threading.Condition()

    def share(self, index):
        def tell(window, value):
            with self.all_here:
                self.told[window, index] = value
                self.all_here.notify_all()
                here = [(window, other) for other in range(COUNT)]
                self.all_here.wait_for(lambda: all(k in self.told for k in here), 20)
                return [self.told[k] for k in here]

        return Share(index, COUNT, tell)


def counting(rows, read):
    """Return rows that note which of them were read."""

    class Noted(type(rows)):
        def read(self, numbers):
            numbers = list(numbers)
            read.extend(int(number) for number in numbers)
            return super().read(numbers)

    return Noted(**{f.name: getattr(rows, f.name) for f in dataclasses.fields(rows)})


def batches_of(train, count, rows=None):
    steps = train.batches(rows=rows)
    found = list(itertools.islice(steps, count))
    steps.close()
    return found


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("kind", ["answers", "texts"])
def test_shared_windows_give_the_batches_of_one_process(open_rows, pack, kind):
    options = {"pack": pack, "pack_window_rows": 16, "sequence_length": 24}
    data = open_rows(rows_of(kind), global_batch_size=6, **options)
    alone = []
    whole = dataclasses.replace(data.train, rows=counting(data.train.rows, alone))
    expected = batches_of(whole, 12)
    table, found, read = Table(), {}, {index: [] for index in range(COUNT)}

    def work(index):
        train = dataclasses.replace(
            data.train,
            share=table.share(index),
            rows=counting(data.train.rows, read[index]),
        )
        found[index] = batches_of(train, 12, rows=[2 * index, 2 * index + 1])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, whole in enumerate(expected):
        parts = [found[index][number] for index in range(COUNT)]
        assert {part.position for part in parts} == {whole.position}
        assert {part.facts for part in parts} == {whole.facts}
        for name, values in whole.batch.items():
            joined = np.concatenate([part.batch[name] for part in parts])
            np.testing.assert_array_equal(joined, values)
    # a third to learn the lengths, a third of the rest to build; texts of many pieces
    # are built twice
    if kind == "answers":
        assert max(len(numbers) for numbers in read.values()) < 0.65 * len(alone)


BAD = (3, 4, 5, 17, 39)


@pytest.mark.parametrize("on_bad_row", ["skip", "raise"])
def test_processes_find_the_bad_rows_together(tmp_path, on_bad_row):
    lines = [json.dumps({"text": "sea"}) for _ in range(40)]
    for index in BAD:
        lines[index] = "no row"
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    table, read, found = Table(), {}, {}

    def check(index, share):
        source = open_jsonl(str(tmp_path / "rows.jsonl"), ColumnsConfig(), key="x")
        one, read[index] = source.read, []
        source.read = lambda number: read[index].append(number) or one(number)
        try:
            rows = check_rows(source, on_bad_row=on_bad_row, key="x", share=share)
            found[index] = (rows.indices.tolist(), rows.bad_rows, rows.bad_row_count)
        except DataError as error:
            found[index] = error.message()

    check("alone", None)
    threads = [
        threading.Thread(target=check, args=(i, table.share(i))) for i in range(COUNT)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    alone = found.pop("alone")
    assert ("5 bad of 40 rows" in alone) if on_bad_row == "raise" else (alone[2] == 5)
    assert found == dict.fromkeys(range(COUNT), alone)
    assert [read[index] for index in range(COUNT)] == [
        list(range(index, 40, COUNT)) for index in range(COUNT)
    ]


def test_a_row_that_is_too_long_ends_the_process_that_reads_it(open_rows):
    data = open_rows(rows_of("answers"), sequence_length=24)
    encoder = dataclasses.replace(
        data.train.encoder, sequence_length=8, on_long_row="raise"
    )
    train = dataclasses.replace(data.train, share=Table().share(0), encoder=encoder)
    with pytest.raises(DataError, match="at most 8 tokens"):
        next(train.batches())


def test_processes_find_the_lengths_to_come_and_measure_a_row_once(open_rows):
    """Batches of nearly all rows are as long as the longest: none ends the search."""
    data = open_rows(rows_of("texts"), global_batch_size=36, pack=False)
    alone = lengths_to_come(data.train, None, num_steps=9, share=None)
    table, read, found = Table(), [], {}

    def measure(index):
        own = dataclasses.replace(data.train, rows=counting(data.train.rows, read))
        found[index] = lengths_to_come(own, None, num_steps=9, share=table.share(index))

    threads = [threading.Thread(target=measure, args=[n]) for n in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found == dict.fromkeys(range(COUNT), alone)
    assert sorted(read) == list(range(40))
