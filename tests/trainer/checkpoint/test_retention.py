"""Which checkpoints stay, and that saving and deleting hold nothing up."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import math
import threading
import time

import jax
import pytest

from tests.trainer.checkpoint.states import METADATA, like, tree
from trainer import storage
from trainer.checkpoint import Store, digest, room
from trainer.config.errors import StorageError


@pytest.fixture
def held(monkeypatch):
    """Deleting waits until this is set."""
    event, remove = threading.Event(), storage.remove

    def wait_and_remove(path):
        if threading.current_thread() is not threading.main_thread():
            assert event.wait(60)
        remove(path)

    monkeypatch.setattr(storage, "remove", wait_and_remove)
    yield event
    event.set()


def fill(store, *steps):
    for step in steps:
        store.save(step, tree(seed=step), METADATA)


def test_a_save_does_not_wait_for_files_that_are_deleted(tmp_path, held):
    with Store(tmp_path, keep_last=1) as store:
        fill(store, 1, 2, 3)
        assert "1" in storage.list_names(tmp_path / "deleting")
        held.set()
    assert storage.list_names(tmp_path) == ["3"]


def test_a_save_waits_for_the_room_that_deleting_gives(tmp_path, monkeypatch):
    remove, gone = storage.remove, []

    def remove_slowly(path):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.5)
            gone.append(path.name)
        remove(path)

    monkeypatch.setattr(storage, "remove", remove_slowly)
    monkeypatch.setattr(room, "free_bytes", lambda directory: 0)
    with Store(tmp_path, keep_last=1) as store:
        fill(store, 1, 2, 3)
        assert gone == ["1"]


def test_files_that_cannot_be_deleted_are_told(tmp_path, monkeypatch):
    def refuse(path):
        raise StorageError(key=str(path), expected="rights", received="none", fix="do")

    store = Store(tmp_path, keep_last=1)
    fill(store, 1, 2)
    monkeypatch.setattr(storage, "remove", refuse)
    fill(store, 3)
    with pytest.raises(StorageError, match="deleting"):
        store.wait()


def test_the_newest_step_that_was_due_stays(tmp_path):
    with Store(tmp_path, keep_last=1, due_every=5) as store:
        fill(store, 5, 10, 12, 13)
        store.wait()
        assert store.steps() == [10, 13]


def test_a_loss_that_is_no_number_is_not_the_best(tmp_path):
    with Store(tmp_path, keep_last=9) as store:
        for step, loss in enumerate([math.nan, 2.0, math.inf], start=1):
            store.save(step, tree(seed=step), METADATA, loss=loss)
        assert store.best() == 2


def test_a_step_that_was_saved_without_a_loss_gets_it_later(tmp_path):
    with Store(tmp_path, keep_last=9) as store:
        store.save(1, tree(seed=1), METADATA, loss=3.0)
        store.save(2, tree(seed=2), METADATA)
    with Store(tmp_path, keep_last=9) as store:
        assert store.best() == 1
        store.rate(2, 2.0)
        store.rate(1, 1.0)  # it has one
        store.rate(7, 1.0)  # it is not there
        assert store.best() == 2
    with Store(tmp_path, keep_last=9) as store:
        assert store.best() == 2
        _, metadata = store.restore(2, like(tree()))
        assert metadata == METADATA


def test_the_first_save_compiles_no_digest(caplog):
    arrays = {f"seen only here {name}": array for name, array in tree().items()}
    digest.compile_ahead(arrays)
    with jax.log_compiles(True):
        digest.start(arrays)
    assert "Compiling" not in caplog.text
    with jax.log_compiles(True):
        digest.start({"another": arrays["seen only here iteration"]})
    assert "Compiling" in caplog.text
