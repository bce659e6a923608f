"""Checkpoints come back bit for bit, on any mesh, or not at all."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import gc
import multiprocessing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.trainer.checkpoint.states import KERNEL, METADATA, bits, like, tree, write
from trainer import storage
from trainer.checkpoint import Store, digests, record
from trainer.checkpoint.retention import DELETING
from trainer.config.errors import StorageError

# Orbax abandons its other reads when one of them fails.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def tidy():
    yield
    gc.collect()  # what abandoned reads hold is let go here, not in another module


def test_arrays_and_metadata_come_back_bit_for_bit_on_another_mesh(tmp_path):
    write(tmp_path, 3)
    wanted = like(tree(2, 4))
    arrays, metadata = Store(tmp_path, keep_last=9).restore(None, wanted)
    assert metadata == METADATA
    for name, array in tree(seed=3).items():
        assert bits(arrays[name]) == bits(array)
        assert arrays[name].sharding == wanted[name].sharding


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 4), (4, 2), (1, 8)])
def test_digests_do_not_depend_on_the_mesh(rows, columns):
    assert digests(tree(rows, columns)) == digests(tree())


@pytest.mark.parametrize("shape", [(7, 3, 5), (8, 3, 5), (40,), (9, 2), ()])
def test_a_digest_is_the_sum_of_weighted_words(shape):
    """Sums may be taken in any order; numbers in old checkpoints stay what they are."""
    words = np.random.default_rng(0).integers(0, 1 << 32, shape, np.uint64)
    factors = (2654435761, 2246822519, 3266489917)
    place = sum(
        (np.indices(shape, np.uint64)[d] + 1) * factors[d] for d in range(len(shape))
    )
    place = np.asarray(place, np.uint64) % (1 << 32)
    weights = 2 * (place ^ (place >> np.uint64(15))) + 1
    expected = int((words * (weights % (1 << 32)) % (1 << 32)).sum()) % (1 << 32)
    assert digests({"a": jnp.asarray(words.astype(np.uint32))}) == {"a": expected}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8"])
def test_every_bit_changes_the_digest(dtype):
    width = jnp.dtype(dtype).itemsize * 8
    words = np.arange(6, dtype=f"uint{width}").reshape(2, 3)
    flipped = [words]
    for bit in range(width):
        other = words.copy()
        other[1, 2] ^= np.array(1 << bit, words.dtype)
        flipped.append(other)
    found = digests({str(i): jnp.asarray(w.view(dtype)) for i, w in enumerate(flipped)})
    assert len(set(found.values())) == width + 1


def test_exchanged_rows_and_a_transposed_array_change_the_digest():
    array = jnp.arange(16.0).reshape(4, 4)
    found = digests({"a": array, "b": array[::-1], "c": array.T, "d": array[:, ::-1]})
    assert len(set(found.values())) == 4


def test_donating_after_save_leaves_the_checkpoint_intact(tmp_path):
    arrays = tree(seed=5)
    expected = {name: bits(array) for name, array in arrays.items()}
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    with Store(tmp_path, keep_last=1) as store:
        store.save(5, arrays, METADATA)
        arrays[KERNEL] = double(arrays[KERNEL]).block_until_ready()
        store.wait()
        restored, _ = store.restore(5, like(arrays))
    assert {name: bits(array) for name, array in restored.items()} == expected


def test_newest_steps_and_the_best_one_stay(tmp_path):
    with Store(tmp_path, keep_last=2) as store:
        for step, loss in {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: None}.items():
            store.save(step, tree(seed=step), METADATA, loss=loss)
        store.wait()
        assert store.steps() == [2, 4, 5]
    reopened = Store(tmp_path, keep_last=2)
    assert (reopened.latest(), reopened.best()) == (5, 2)
    reopened.save(6, tree(seed=6), METADATA, loss=1.5)
    reopened.wait()
    assert reopened.steps() == [2, 5, 6]


def test_a_reader_leaves_a_run_at_work_alone(tmp_path):
    write(tmp_path, 3)
    (tmp_path / "4.orbax-checkpoint-tmp").mkdir()
    with Store(tmp_path, keep_last=1, read_only=True) as reader:
        arrays, _ = reader.restore(None, like(tree()))
        with pytest.raises(StorageError, match="the store is only read from"):
            reader.save(5, tree(), METADATA)
    assert bits(arrays[KERNEL]) == bits(tree(seed=3)[KERNEL])
    assert storage.list_names(tmp_path) == ["3", "4.orbax-checkpoint-tmp"]
    with pytest.raises(StorageError, match="checkpoints of steps: none"):
        Store(tmp_path / "none", keep_last=1, read_only=True).restore(None, {})


def test_a_reader_goes_on_with_what_a_run_at_work_has_kept_meanwhile(tmp_path):
    with Store(tmp_path, keep_last=1) as writer:
        writer.save(3, tree(seed=3), METADATA, loss=1.0)
        writer.wait()
        with Store(tmp_path, keep_last=1, read_only=True) as reader:
            for step, loss in ((4, 0.5), (5, 0.25)):
                writer.save(step, tree(seed=step), METADATA, loss=loss)
            writer.wait()
            assert reader.steps() == [3]
            arrays, _ = reader.restore(None, like(tree()))
            assert reader.best() == 5
    assert bits(arrays[KERNEL]) == bits(tree(seed=5)[KERNEL])


def test_a_reader_is_told_what_is_left_of_the_step_that_it_asks_for(tmp_path):
    with Store(tmp_path, keep_last=1) as writer:
        writer.save(3, tree(seed=3), METADATA)
        writer.wait()
        rule = {"read_only": True, "on_corrupt": "previous"}
        with Store(tmp_path, keep_last=1, **rule) as reader:
            writer.save(4, tree(seed=4), METADATA)
            writer.wait()
            with pytest.raises(StorageError, match="checkpoints of steps: 4"):
                reader.restore(3, like(tree()))
            assert reader.left_out == []


def test_the_best_of_what_is_left_is_found_beside_a_run_at_work(tmp_path):
    with Store(tmp_path, keep_last=1) as writer:
        writer.save(3, tree(seed=3), METADATA, loss=1.0)
        writer.wait()
        with Store(tmp_path, keep_last=1, read_only=True) as reader:
            writer.save(4, tree(seed=4), METADATA, loss=0.5)
            writer.wait()
            assert reader.best() == 4


def test_metadata_is_read_without_arrays(tmp_path):
    write(tmp_path, 3)
    assert Store(tmp_path, keep_last=1).metadata() == METADATA


def test_saving_the_same_step_twice_keeps_it(tmp_path):
    write(tmp_path, 3, 3)
    assert Store(tmp_path, keep_last=1).steps() == [3]


def test_saving_a_step_with_another_state_is_refused(tmp_path):
    write(tmp_path, 3)
    with pytest.raises(StorageError, match="another state for this step"):
        Store(tmp_path, keep_last=1).save(3, tree(seed=4), METADATA)


def test_saving_an_older_step_is_refused(tmp_path):
    write(tmp_path, 3)
    with pytest.raises(StorageError, match="a step after 3, the newest checkpoint"):
        Store(tmp_path, keep_last=1).save(2, tree(seed=2), METADATA)


def test_no_checkpoint_and_unknown_steps_are_named(tmp_path):
    with pytest.raises(StorageError, match="checkpoints of steps: none"):
        Store(tmp_path / "empty", keep_last=1).restore(None, {})
    write(tmp_path / "run", 3)
    with pytest.raises(StorageError, match="a checkpoint of step 4"):
        Store(tmp_path / "run", keep_last=1).restore(4, {})


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a directory for checkpoints") as caught:
        Store(tmp_path / "file" / "checkpoints", keep_last=1)
    assert caught.value.exit_code == 7


def test_a_tree_of_other_names_shapes_or_dtypes_is_refused(tmp_path):
    write(tmp_path, 3)
    wanted = like(tree())
    wanted["slots/momentum"] = jax.ShapeDtypeStruct(
        (8, 32), jnp.float32, sharding=wanted["slots/momentum"].sharding
    )
    wanted["extra"] = wanted.pop("iteration")
    with pytest.raises(StorageError) as caught:
        Store(tmp_path, keep_last=1).restore(3, wanted)
    assert "slots/momentum: float32[8,32]" in caught.value.expected
    assert "slots/momentum: bfloat16[8,32]" in caught.value.received
    assert "extra: not there" in caught.value.received
    assert "iteration: not there" in caught.value.expected


def test_a_long_list_of_differences_is_cut(tmp_path):
    write(tmp_path, 3)
    names = {name + "_other": array for name, array in like(tree()).items()}
    with pytest.raises(StorageError, match="and 4 more that differ"):
        Store(tmp_path, keep_last=1).restore(3, names)


def test_a_record_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.checkpoint.record.VERSION", 3)
    write(tmp_path, 3)
    monkeypatch.undo()
    with pytest.raises(StorageError, match="a checkpoint of version 2"):
        Store(tmp_path, keep_last=1).metadata(3)


def test_a_changed_array_is_named():
    arrays = tree()
    sealed = record.seal(record.describe(arrays, {}, loss=None), digests(arrays), {})
    facts = record.unseal(sealed, where="", fix="")
    found = {**digests(arrays), "slots/momentum": 1}
    with pytest.raises(StorageError, match="damaged: slots/momentum") as caught:
        record.check_digests(facts, found, where="checkpoints/3", fix="delete it")
    assert caught.value.key == "checkpoints/3"


def test_a_damaged_record_is_refused(tmp_path):
    write(tmp_path, 3)
    file = tmp_path / "3" / "record.json"
    file.write_text(file.read_text().replace('"index":7', '"index":8'))
    with pytest.raises(StorageError, match="its sha256 differs") as caught:
        Store(tmp_path, keep_last=1)
    assert f"delete {tmp_path / '3'}" in caught.value.fix


def test_what_a_killed_run_was_deleting_is_no_damage(tmp_path):
    write(tmp_path, 2, 3)
    (tmp_path / DELETING).mkdir()
    (tmp_path / "2").rename(tmp_path / DELETING / "2")  # as Orbax does, at once
    (tmp_path / DELETING / "2" / "record.json").unlink()
    with Store(tmp_path, keep_last=9) as store:
        assert store.steps() == [3]
    assert storage.list_names(tmp_path) == ["3"]


def save_for_ever(directory):
    store = Store(directory, keep_last=2)
    for step in range(1, 10_000):
        store.save(step, tree(seed=step), METADATA)


def test_a_killed_writer_leaves_whole_checkpoints_and_no_rubbish(tmp_path):
    writer = multiprocessing.get_context("spawn").Process(
        target=save_for_ever, args=(str(tmp_path),)
    )
    writer.start()
    while len(storage.list_names(tmp_path)) < 3 and writer.is_alive():
        writer.join(0.01)
    writer.kill()
    writer.join()
    with Store(tmp_path, keep_last=2) as store:
        step = store.latest()
        arrays, _ = store.restore(step, like(tree()))
        assert bits(arrays[KERNEL]) == bits(tree(seed=step)[KERNEL])
        store.save(step + 1, tree(seed=step + 1), METADATA)  # waits for the cleaning
    assert storage.list_names(tmp_path) == sorted([str(step), str(step + 1)])
