"""A disk that is full ends the run with numbers, and costs no checkpoint."""

import subprocess
import sys

import jax
import pytest

from tests.trainer.checkpoint.states import KERNEL, bits, like, tree, write
from trainer import storage
from trainer.checkpoint import Store, room
from trainer.config.errors import PeerLostError, StorageError

# The system's own limit on the size of a file: the real save meets a real error.
FULL = """
import resource, sys
from tests.trainer.checkpoint.states import tree
from trainer.checkpoint import Store
from trainer.config.errors import StorageError
try:
    with Store(sys.argv[1], keep_last=1) as store:
        store.save(1, tree(seed=1), {})
        store.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
        store.save(2, tree(seed=2), {})
        print("going on", flush=True)
        store.wait()
except StorageError as error:
    print(error.exit_code, error.message(), flush=True)
"""


@pytest.mark.parametrize("limit", [0, 64, 1024])
def test_a_save_that_finds_no_room_keeps_the_one_before(tmp_path, repository, limit):
    checkpoints = tmp_path / "checkpoints"
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(checkpoints), str(limit)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = " ".join(ended.stdout.split())
    assert "7 storage error" in said, ended.stderr
    assert f"key {checkpoints / '2'}" in said
    assert "4,620 bytes needed, " in said
    assert " bytes free" in said
    assert "the one before is whole" in said
    with Store(checkpoints, keep_last=1) as store:
        arrays, _ = store.restore(None, like(tree()))
        assert bits(arrays[KERNEL]) == bits(tree(seed=1)[KERNEL])
        store.save(2, tree(seed=2), {})  # waits for the cleaning
    assert storage.list_names(checkpoints) == ["2"]


def test_checkpoints_that_will_not_fit_are_told_before_the_first(tmp_path):
    described = {"kernel": jax.ShapeDtypeStruct((1 << 20, 1 << 20), "float32")}
    with Store(tmp_path, keep_last=2) as store:
        with pytest.raises(StorageError) as caught:
            store.check_room(described, saves=9)
        store.check_room(like(tree()), saves=9)
        store.check_room(described, saves=0)  # all of them are there
    assert caught.value.exit_code == 7
    assert caught.value.expected.startswith("17,592,186,044,416 bytes free: 4 check")
    assert caught.value.received.endswith(" bytes free")
    assert "checkpoint.keep_last" in caught.value.fix


@pytest.mark.parametrize(
    ("there", "saves", "more"),
    [((), 1, 1), ((), 9, 5), ((1, 2, 3), 9, 2), ((1, 2, 3, 4, 5), 9, 1)],
)
def test_room_is_needed_for_what_is_not_there_yet(tmp_path, there, saves, more):
    write(tmp_path, *there)
    described = {"kernel": jax.ShapeDtypeStruct((1 << 50,), "uint8")}
    with (
        Store(tmp_path, keep_last=3) as store,
        pytest.raises(StorageError, match=f": {more} checkpoints of"),
    ):
        store.check_room(described, saves=saves)


def test_a_bucket_has_room(bucket):
    assert room.free_bytes(bucket) is None


def test_a_process_that_is_lost_is_not_taken_for_a_full_disk(tmp_path):
    lost = PeerLostError(key="process 1", expected="life", received="none", fix="wait")
    with pytest.raises(PeerLostError), room.explained_save(tmp_path / "1", needed=8):
        raise lost


@pytest.mark.parametrize(
    "error",
    [
        ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"),
        jax.errors.JaxRuntimeError("INTERNAL: collective aborted"),
    ],
)
def test_what_a_collective_meets_is_storages_for_one_process_alone(
    tmp_path, monkeypatch, error
):
    with pytest.raises(StorageError), room.explained(tmp_path, "a checkpoint"):
        raise error
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(type(error)) as met, room.explained(tmp_path, "a checkpoint"):
        raise error
    assert met.value is error
    with pytest.raises(StorageError), room.explained(tmp_path, "a checkpoint"):
        raise ValueError("a chunk that is not whole")
