"""Held-out batches: fixed, in order, whole."""

import numpy as np
import pytest


def rows(count):
    return [{"prompt": f"p{n}", "response": f"r{n}"} for n in range(count)]


@pytest.fixture
def open_held_out(open_rows, write_rows):
    def open_(held_out, **options):
        path = write_rows(held_out, name="held_out.jsonl")
        options = {"sequence_length": 64, "global_batch_size": 4} | options
        return open_rows(rows(3), eval_path=path, **options).evaluation

    return open_


@pytest.mark.parametrize("pack", [True, False])
def test_batches_hold_every_row_once_in_order(open_held_out, tokenizer, pack):
    held_out = open_held_out(rows(11), pack=pack, pack_window_rows=4)
    learned = [
        tokenizer.detokenize(batch["labels"][row][batch["loss_mask"][row]])
        for batch in held_out.batches()
        for row in range(4)
    ]
    expected = "".join(f"r{n}<end_of_turn>" for n in range(11))
    assert "".join(learned) == expected


def test_the_last_batch_is_filled_with_empty_sequences(open_held_out):
    held_out = open_held_out(rows(6), pack=False)
    first, last = held_out.batches()
    assert len(held_out) == 2
    assert first["segment_ids"].any(axis=1).tolist() == [True] * 4
    assert last["segment_ids"].any(axis=1).tolist() == [True, True, False, False]
    assert last["token_ids"].shape == first["token_ids"].shape == (4, 32)


def test_every_evaluation_is_the_same(open_held_out):
    held_out = open_held_out(rows(9), pack_window_rows=2)
    for first, second in zip(held_out.batches(), held_out.batches(), strict=True):
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_facts_count_what_the_batches_hold(open_held_out):
    held_out = open_held_out(rows(9))
    batches = list(held_out.batches())
    assert held_out.facts.rows == 9
    assert held_out.facts.tokens == sum(
        np.count_nonzero(b["segment_ids"]) for b in batches
    )
    assert held_out.facts.loss_tokens == sum(b["loss_mask"].sum() for b in batches)


def test_slices_of_processes_tile_the_batches(open_held_out):
    held_out = open_held_out(rows(9), pack=False)
    parts = [held_out.batches(rows=part) for part in (slice(0, 1), slice(1, 4))]
    for whole, *cut in zip(held_out.batches(), *parts, strict=True):
        joined = np.concatenate([part["labels"] for part in cut])
        assert np.array_equal(whole["labels"], joined)


def test_only_the_first_rows_are_used_on_request(open_held_out):
    held_out = open_held_out(rows(9), eval_rows=4)
    assert (held_out.facts.rows, held_out.prompts(1)) == (4, [("p0", "r0")])


def test_prompts_are_the_first_rows(open_held_out):
    held_out = open_held_out(rows(3))
    assert held_out.prompts(2) == [("p0", "r0"), ("p1", "r1")]
    assert len(held_out.prompts(9)) == 3
    assert held_out.prompts_are_chat


def test_plain_text_is_continued_from_its_middle(open_held_out):
    held_out = open_held_out([{"text": "a b c d e"}])
    assert held_out.prompts(1) == [("a b c", "d e")]
    assert not held_out.prompts_are_chat


def test_nothing_is_held_out_without_a_path(open_rows):
    assert open_rows(rows(3)).evaluation is None
