"""One bit, a cut or a file that is gone: found, named, and what goes on without it."""

import gc
import random
import shutil

import pytest
from etils import epath

from tests.trainer.checkpoint.states import KERNEL, bits, like, tree, write
from trainer import storage
from trainer.checkpoint import Store, files, record
from trainer.checkpoint.inspection import committed_steps, whole_steps
from trainer.checkpoint.sealing import MARKER
from trainer.config.errors import DamagedError, StorageError

# Orbax abandons its other reads when one of them fails.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
RANDOM_DAMAGES = 20


@pytest.fixture(autouse=True)
def tidy():
    yield
    gc.collect()  # what abandoned reads hold is let go here, not in another module


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("intact") / "checkpoints"
    write(directory, 2, 3)
    return directory


@pytest.fixture
def checkpoints(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "checkpoints")


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def cut(path, bit):
    path.write_bytes(path.read_bytes()[: bit // 8])


def remove(path, bit):
    path.unlink()


def files_of(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def largest(step):
    return max(files_of(step), key=lambda path: path.stat().st_size)


def restore(directory, **options):
    with Store(directory, keep_last=9, **options) as store:
        arrays, _ = store.restore(None, like(tree()))
        return bits(arrays[KERNEL]), store


@pytest.mark.parametrize("damage", [flip, cut, remove])
def test_damage_of_any_file_is_found_and_the_file_named(checkpoints, damage):
    for path in files_of(checkpoints / "3"):
        content = path.read_bytes()
        damage(path, 8 * len(content) // 3)
        with pytest.raises(DamagedError) as caught:
            Store(checkpoints, keep_last=9)
        assert path.name in caught.value.received
        path.write_bytes(content)
    assert restore(checkpoints)[0] == bits(tree(seed=3)[KERNEL])


def test_random_damage_is_found_in_every_checkpoint_by_who_trains(checkpoints):
    draw = random.Random(5)
    for _ in range(RANDOM_DAMAGES):
        path = draw.choice(files_of(checkpoints))
        content = path.read_bytes()
        damage = draw.choice([flip, cut, remove])
        damage(path, draw.randrange(8 * len(content)))
        with pytest.raises(DamagedError, match=r"checkpoint\.on_corrupt=previous"):
            Store(checkpoints, keep_last=9)
        path.write_bytes(content)


def test_who_only_reads_finds_damage_too(checkpoints):
    flip(largest(checkpoints / "3"), 9)
    with pytest.raises(DamagedError, match="has another content"):
        restore(checkpoints, read_only=True)
    assert storage.list_names(checkpoints.parent) == ["checkpoints"]


def test_arrays_in_large_files_are_proven_by_their_digests(checkpoints, monkeypatch):
    monkeypatch.setattr(files, "HASHED_BYTES", 0)
    with Store(checkpoints.parent / "large", keep_last=9) as store:
        for step in (2, 3):
            store.save(step, tree(seed=step), {})
    step = checkpoints.parent / "large" / "3"
    path = largest(step)
    flip(path, 4 * path.stat().st_size)
    with pytest.raises(DamagedError, match=r"damaged|Error") as caught:
        restore(step.parent)
    assert caught.value.key == str(step)
    assert restore(step.parent, on_corrupt="previous")[0] == bits(tree(seed=2)[KERNEL])


def test_the_only_checkpoint_is_never_left_out(checkpoints):
    shutil.rmtree(checkpoints / "2")
    cut(largest(checkpoints / "3"), 80)
    with pytest.raises(DamagedError, match="it starts again"):
        Store(checkpoints, keep_last=9, on_corrupt="previous")
    assert storage.list_names(checkpoints) == ["3"]


def test_previous_goes_on_from_the_newest_whole_one_and_keeps_the_other(checkpoints):
    cut(largest(checkpoints / "3"), 80)
    found, store = restore(checkpoints, on_corrupt="previous")
    assert found == bits(tree(seed=2)[KERNEL])
    (left_out,) = store.left_out
    assert left_out.step == 3
    assert "has 10 bytes instead of" in left_out.damage
    assert left_out.place == str(checkpoints.with_name("checkpoints-damaged") / "3")
    assert storage.exists(f"{left_out.place}/record.json")


def test_a_step_that_was_put_aside_is_saved_again_and_aside_again(checkpoints):
    for name in ("3", "3-2"):
        remove(largest(checkpoints / "3"), 0)
        with Store(checkpoints, keep_last=9, on_corrupt="previous") as store:
            assert store.left_out[0].place.endswith(f"-damaged/{name}")
            store.save(3, tree(seed=3), {})
    assert restore(checkpoints)[0] == bits(tree(seed=3)[KERNEL])


def test_a_reader_leaves_a_damaged_checkpoint_where_it_is(checkpoints):
    remove(checkpoints / "3" / "record.json", 0)
    found, store = restore(checkpoints, read_only=True, on_corrupt="previous")
    assert found == bits(tree(seed=2)[KERNEL])
    assert store.left_out[0].place == str(checkpoints / "3")
    assert storage.list_names(checkpoints.parent) == ["checkpoints"]


@pytest.fixture
def in_a_bucket(bucket):
    """Three steps as Orbax leaves them in a bucket, of one file each."""
    directory = epath.Path(bucket) / "checkpoints"
    for step in (1, 2, 3):
        content, facts = b"content", record.describe({}, {}, loss=None)
        described = {
            name: files.describe_bytes(content) for name in ("arrays/d/1", MARKER)
        }
        for name in described:
            storage.write_bytes(directory / str(step) / name, content)
        sealed = record.seal(facts, {}, described)
        storage.write_bytes(directory / str(step) / record.RECORD, sealed)
    return directory


def test_what_a_killed_run_was_deleting_in_a_bucket_stops_nobody(in_a_bucket):
    storage.remove(in_a_bucket / "1" / "arrays" / "d" / "1")
    records, left_out = whole_steps(in_a_bucket, keep_last=2, leave_out=False)
    assert sorted(records) == [2, 3]
    assert [(one.step, one.damage) for one in left_out] == [(1, "arrays/d/1 is gone")]
    aside = in_a_bucket.with_name("checkpoints-damaged")
    assert storage.list_names(aside / "1") == [MARKER, record.RECORD]
    assert committed_steps(in_a_bucket) == [2, 3]


def test_damage_in_a_bucket_is_found_in_what_is_kept(in_a_bucket):
    storage.write_bytes(in_a_bucket / "2" / "arrays" / "d" / "1", b"contend")
    with pytest.raises(DamagedError, match="arrays/d/1 has another content"):
        whole_steps(in_a_bucket, keep_last=2, leave_out=False)
    records, _ = whole_steps(in_a_bucket, keep_last=2, leave_out=True)
    assert sorted(records) == [1, 3]


def test_an_unfinished_step_in_a_bucket_is_no_step(in_a_bucket):
    storage.remove(in_a_bucket / "3" / MARKER)
    assert committed_steps(in_a_bucket) == [1, 2]


def test_a_damaged_checkpoint_that_cannot_be_moved_is_an_error(checkpoints):
    remove(checkpoints / "3" / "record.json", 0)
    checkpoints.with_name("checkpoints-damaged").write_text("in the way")
    with pytest.raises(StorageError, match="a damaged checkpoint that can be moved"):
        Store(checkpoints, keep_last=9, on_corrupt="previous")
