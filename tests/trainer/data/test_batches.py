"""The stream of batches: each row once an epoch, exact resume, process slices."""

import dataclasses
import itertools
import json
import threading

import numpy as np
import pytest

from trainer.config.errors import DataError
from trainer.data import Position

WORDS = ["sea", "sky", "oak", "elm", "fox", "owl", "bee"]


def numbered(count):
    """Return rows that differ in length and in the number that they answer."""
    return [
        {"prompt": " ".join(WORDS[: n % 7 + 1]), "response": f"row {n}."}
        for n in range(count)
    ]


def answers(batch, tokenizer):
    """Return the learned text of every segment, in order."""
    found = []
    for row in range(len(batch["labels"])):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            here = (batch["segment_ids"][row] == segment) & batch["loss_mask"][row]
            ids = batch["labels"][row][here]
            found.append(tokenizer.detokenize(ids).removesuffix("<end_of_turn>"))
    return found


def read_epoch(data, tokenizer, epoch=0):
    """Return the answers of the sequences of one epoch, read one by one."""
    found = []
    start = Position(epoch, 0)
    for step in data.train.batches(start):
        found += answers(step.batch, tokenizer)
        if step.position.epoch > epoch:
            return found


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("window", [1, 7, 50, 1000])
@pytest.mark.parametrize("pack", [True, False])
def test_each_row_occurs_once_an_epoch(open_rows, tokenizer, window, pack):
    data = open_rows(
        numbered(50),
        global_batch_size=1,
        sequence_length=64,
        pack=pack,
        pack_window_rows=window,
    )
    expected = sorted(f"row {n}." for n in range(50))
    first, second = (read_epoch(data, tokenizer, epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == expected
    assert first != second


@pytest.mark.parametrize("global_batch_size", [1, 2, 3, 8, 64])
def test_batch_sizes_cut_one_and_the_same_stream(
    open_rows, tokenizer, global_batch_size
):
    rows, count = numbered(30), 64
    options = {"sequence_length": 64, "pack_window_rows": 8}
    one = open_rows(rows, global_batch_size=1, **options).train.batches()
    sizes = open_rows(rows, global_batch_size=global_batch_size, **options)
    steps = list(itertools.islice(sizes.train.batches(), count // global_batch_size))
    single = list(itertools.islice(one, len(steps) * global_batch_size))
    for number, step in enumerate(steps):
        group = single[number * global_batch_size : (number + 1) * global_batch_size]
        joined = np.concatenate([other.batch["token_ids"] for other in group])
        assert np.array_equal(step.batch["token_ids"], joined)
        assert step.position == group[-1].position


def test_without_shuffling_rows_keep_their_order(open_rows, tokenizer):
    data = open_rows(numbered(12), shuffle=False, pack=False, sequence_length=64)
    [*steps] = itertools.islice(data.train.batches(), 6)
    found = [answer for step in steps for answer in answers(step.batch, tokenizer)]
    assert found == [f"row {n}." for n in range(12)]
    assert steps[-1].position == Position(1, 0)


def test_packs_are_first_fit_in_the_order_of_the_window(open_rows, tokenizer):
    rows = [{"text": "a" * n} for n in (5, 4, 3, 6, 1, 2)]
    data = open_rows(
        rows, sequence_length=10, shuffle=False, pack_window_rows=4, global_batch_size=5
    )
    step = next(data.train.batches())
    # "a" is one id: rows fill n + 1 positions. First window 6, 5, 4, 7; second 2, 3.
    assert [len(tokenizer("a" * n)) for n in (5, 4, 3, 6, 1, 2)] == [5, 4, 3, 6, 1, 2]
    filled = [
        [int((row == segment).sum()) for segment in range(1, row.max() + 1)]
        for row in step.batch["segment_ids"]
    ]
    assert filled == [[6, 4], [5], [7], [2, 3], [6, 4]]
    assert step.position == Position.at(epoch=1, window=0, offset=1)
    assert (step.facts.rows, step.facts.tokens, step.facts.loss_tokens) == (8, 37, 37)


@pytest.mark.parametrize("pack", [True, False])
def test_resuming_from_every_position_gives_the_same_rest(open_rows, pack):
    data = open_rows(
        numbered(23),
        global_batch_size=3,
        sequence_length=64,
        pack=pack,
        pack_window_rows=5,
    )
    steps = list(itertools.islice(data.train.batches(), 20))
    assert steps[-1].position.epoch >= 1
    for number, step in enumerate(steps[:-1]):
        stored = json.loads(json.dumps(vars(step.position)))
        resumed = next(data.train.batches(Position(**stored)))
        assert resumed.position == steps[number + 1].position
        assert resumed.facts == steps[number + 1].facts
        assert same(resumed.batch, steps[number + 1].batch)


@pytest.mark.parametrize(
    "slices",
    [
        [slice(0, 4), slice(4, 8)],
        [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)],
        [[0, 5], [1, 4], [2, 3, 6, 7]],
        [slice(0, 8), slice(0, 8)],
    ],
)
@pytest.mark.parametrize("pack", [True, False])
def test_slices_of_processes_tile_the_global_batch(open_rows, slices, pack):
    data = open_rows(
        numbered(40), global_batch_size=8, sequence_length=64, pack=pack, seed=4
    )
    whole = list(itertools.islice(data.train.batches(), 4))
    for rows in slices:
        part = itertools.islice(data.train.batches(rows=rows), 4)
        for step, all_rows in zip(part, whole, strict=True):
            assert (step.position, step.facts) == (all_rows.position, all_rows.facts)
            for name, array in all_rows.batch.items():
                assert np.array_equal(step.batch[name], array[rows])


@pytest.mark.parametrize("pack", [True, False])
def test_a_batch_knows_the_rows_that_it_has(open_rows, tokenizer, pack):
    """Over windows and epochs, whichever of its sequences are built."""
    data = open_rows(
        numbered(50),
        global_batch_size=4,
        sequence_length=64,
        pack=pack,
        pack_window_rows=7,
    )
    for step in itertools.islice(data.train.batches(), 20):
        expected = [f"row {n}." for n in step.row_numbers]
        assert answers(step.batch, tokenizer) == expected
        assert data.train.rows.place(step.row_numbers[0]).endswith(
            f":{step.row_numbers[0] + 1}"
        )


def test_seeds_give_different_orders(open_rows, write_rows, tokenizer):
    path = write_rows(numbered(20))
    first, again, other = (
        read_epoch(open_rows(path, seed=seed, sequence_length=64), tokenizer)
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_unpacked_batches_have_the_smallest_bucket(open_rows):
    rows = [{"text": "a" * n} for n in (3, 40, 100, 300)]
    data = open_rows(
        rows, pack=False, shuffle=False, global_batch_size=1, sequence_length=200
    )
    widths = [
        step.batch["token_ids"].shape[1]
        for step in itertools.islice(data.train.batches(), 5)
    ]
    assert widths == [32, 64, 128, 200, 128]  # 300 goes on in a second sequence


def test_a_text_in_several_sequences_counts_as_one_row(open_rows):
    data = open_rows(
        [{"text": "a" * 50}], sequence_length=20, global_batch_size=3, pack=False
    )
    step = next(data.train.batches())
    assert step.position == Position(1, 0)
    assert (step.facts.rows, step.facts.loss_tokens) == (1, 51)


def test_rows_with_nothing_to_learn_end_the_search(open_rows):
    data = open_rows([{"prompt": "sea " * 50, "response": "x"}] * 3, sequence_length=8)
    with pytest.raises(DataError) as refused:
        next(data.train.batches())
    assert "3 rows, none of which has anything to learn left" in str(refused.value)


def test_the_background_thread_ends_with_the_iterator(open_rows):
    before = set(threading.enumerate())
    batches = open_rows(numbered(20), sequence_length=64).train.batches()
    next(batches)
    ours = set(threading.enumerate()) - before
    batches.close()
    for thread in ours:
        thread.join(timeout=30)
    assert ours and not any(thread.is_alive() for thread in ours)


def test_an_error_in_the_background_keeps_its_words(open_rows):
    data = open_rows(numbered(3), sequence_length=8)
    strict = dataclasses.replace(data.train.encoder, on_long_row="raise")
    stream = dataclasses.replace(data.train, encoder=strict)
    with pytest.raises(DataError, match="rows of at most 8 tokens"):
        next(stream.batches())


def test_prompts_carry_no_loss_and_labels_are_the_next_token(open_rows, tokenizer):
    data = open_rows(
        [{"prompt": "sea", "response": "sky"}], sequence_length=32, global_batch_size=1
    )
    batch = next(data.train.batches()).batch
    count = int((batch["segment_ids"][0] > 0).sum())
    ids, labels = batch["token_ids"][0], batch["labels"][0]
    assert np.array_equal(ids[1:count], labels[: count - 1])
    learned = [*tokenizer("sky"), 6]
    assert labels[batch["loss_mask"][0]].tolist() == learned
    assert batch["loss_mask"][0].nonzero()[0].tolist() == list(
        range(count - len(learned), count)
    )
