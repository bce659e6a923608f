import dataclasses

import pytest

from tests.trainer.memory_plans import plan_of
from trainer.tasks.planning.search import Search

GIB = 2**30


def search_of(name="gemma2_9b_en", *, shape=(2, 4), limit=15 * GIB, **changed):
    plan = plan_of(name, **changed)
    return Search(plan=plan, shape=shape, limit=limit, global_batch_size=16)


def test_the_largest_microbatch_is_the_last_that_fits():
    search = search_of()
    size = search.largest_microbatch()
    assert size % 2 == 0

    def fits(size):
        return search.fits(dataclasses.replace(search.plan, microbatch_size=size))

    assert fits(size) and not fits(size + 2)


def test_the_largest_sequence_is_the_last_that_fits():
    search = search_of("gemma3_4b_text")
    length = search.largest_sequence()
    assert length % 128 == 0

    def fits(length):
        return search.fits(dataclasses.replace(search.plan, sequence_length=length))

    assert fits(length) and not fits(length + 128)


def full_9b(**changed):
    return search_of(
        lora=None, shape=(1, 2), microbatch_size=4, sequence_length=512, **changed
    )


def test_a_microbatch_that_fits_is_not_too_large_for_being_split():
    search = full_9b(limit=10_000 * GIB)
    search = dataclasses.replace(search, limit=search.total(search.plan))
    assert not search.fits(search._with_microbatch(1))  # two copies of the gradient
    assert search.largest_microbatch() == 4
    assert dataclasses.replace(search, limit=4000 * GIB).largest_microbatch() > 4


@pytest.mark.parametrize("length", [64, 1000])
def test_the_largest_sequence_is_no_shorter_than_one_that_fits(length):
    search = search_of(sequence_length=length)
    exactly = dataclasses.replace(search, limit=search.total(search.plan))
    assert exactly.largest_sequence() == length
    assert search.largest_sequence() % 128 == 0 and search.largest_sequence() > length


def test_nothing_is_largest_where_the_state_alone_is_too_large():
    search = search_of(limit=GIB)
    assert search.largest_microbatch() == 0
    assert search.largest_sequence() == 0


def test_no_sequence_is_longer_than_the_model_was_made_for():
    assert search_of(limit=10_000 * GIB).largest_sequence() == 8192


def test_a_compiler_that_needs_more_corrects_the_work_and_not_the_state():
    search = search_of()
    found = search.plan.estimate((2, 4))
    twice = dataclasses.replace(search, work_ratio=2.0)
    assert search.total(search.plan) == found.total
    assert twice.total(search.plan) == 2 * found.total - found.state


def test_changes_are_told_with_what_each_gives():
    search = search_of("gemma2_27b_en", shape=(1, 4), remat="none")
    found = {change.words.split("=")[0]: change for change in search.changes()}
    assert {"trainer.remat", "trainer.microbatch_size", "preset.quantize"} <= set(found)
    now = search.total(search.plan)
    for change in found.values():
        assert change.total < now
        assert change.fits == (change.total <= search.limit)


def test_the_largest_smaller_microbatch_that_fits_is_advised():
    search = search_of(limit=6 * GIB, sequence_length=4096)
    assert not search.fits(search.plan)
    (advised,) = (
        change
        for change in search.changes()
        if change.words.startswith("trainer.microbatch_size")
    )
    assert advised.fits
    size = int(advised.words.split("=")[1])
    assert 16 % size == 0 and size % 2 == 0
    twice = search._with_microbatch(2 * size)
    assert not search.fits(twice)


def test_a_trained_base_is_never_quantized():
    search = search_of("gemma2_27b_en", lora=None)
    assert not any("quantize" in change.words for change in search.changes())


def test_an_int4_base_has_no_fewer_bits():
    search = search_of("gemma2_27b_en", quantize="int4", limit=GIB)
    assert not any("quantize" in change.words for change in search.changes())


@pytest.mark.parametrize(
    "shape, better, changed", [((8, 1), (1, 8), {}), ((1, 8), (4, 2), {"lora": None})]
)
def test_another_mesh_is_advised_with_what_it_gives(shape, better, changed):
    search = search_of(shape=shape, limit=3 * GIB, **changed)
    found = {change.words: change.total for change in search.changes()}
    words = f"mesh={better[0]}x{better[1]}"
    assert found[words] == search.plan.estimate(better).total
    assert found[words] < search.plan.estimate(shape).total
    with_room = search_of(shape=better, limit=3 * GIB, **changed)
    assert not any(change.words == words for change in with_room.changes())
