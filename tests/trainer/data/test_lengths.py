"""The lengths of the batches to come, against the batches themselves."""

import itertools

import pytest

from trainer.data.lengths import lengths_to_come


def rows_of(lengths):
    return [{"prompt": "Go.", "response": " ".join(["owl"] * n)} for n in lengths]


MIXED = rows_of([2, 2, 60, 3, 2, 2, 4, 30, 2, 5, 2, 3, 2, 2, 29, 2, 2, 2, 3])


def met(stream, start, count):
    """Return the lengths of the next batches as they are built."""
    steps = itertools.islice(stream.batches(start), count)
    return sorted({step.batch["token_ids"].shape[1] for step in steps})


@pytest.mark.parametrize("count", [1, 2, 5, 40])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("window", [1, 4, 1000])
def test_the_lengths_to_come_are_those_that_come(open_rows, count, shuffle, window):
    stream = open_rows(
        MIXED,
        sequence_length=200,
        pack=False,
        shuffle=shuffle,
        pack_window_rows=window,
    ).train
    later = next(itertools.islice(stream.batches(), 2, None)).position
    for start in (None, later):
        found = lengths_to_come(stream, start, num_steps=count, share=None)
        assert found == met(stream, start, count)


def test_text_in_several_pieces_and_rows_left_out_count_as_they_are(open_rows):
    rows = [{"text": "owl " * n} for n in (300, 3, 80)] + rows_of([200, 2])
    stream = open_rows(
        rows, sequence_length=100, pack=False, on_long_row="skip", global_batch_size=1
    ).train
    found = lengths_to_come(stream, None, num_steps=9, share=None)
    assert found == met(stream, None, 9)
    assert found[-1] == 100


def test_packed_batches_have_one_length(open_rows):
    stream = open_rows(MIXED, sequence_length=200, pack=True).train
    assert lengths_to_come(stream, None, num_steps=3, share=None) == [200]


def test_no_steps_have_no_lengths(open_rows):
    stream = open_rows(MIXED, sequence_length=200, pack=False).train
    assert lengths_to_come(stream, None, num_steps=0, share=None) == []
