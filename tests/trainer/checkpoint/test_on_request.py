"""`touch SAVE` is one request, and the file goes when the checkpoint is there."""

import time

from etils import epath

from tests.trainer.checkpoint.states import tree
from trainer import storage
from trainer.checkpoint import SaveRequest, Store


def until(claim, seconds=20.0):
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_file_is_one_request_and_goes_with_its_checkpoint(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    file = tmp_path / "SAVE"
    with (
        SaveRequest(epath.Path(tmp_path), epath.Path(checkpoints)) as request,
        Store(checkpoints, keep_last=2) as store,
    ):
        assert not request.take()
        for step in (3, 5):  # and once more: a file that is made again asks again
            file.touch()
            until(request.take)
            assert not request.take()
            store.save(step, tree(seed=step), {})
            request.started(step)
            until(lambda: not file.exists())
            assert step in store.steps()


def test_a_request_is_answered_by_the_save_that_comes_anyway(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    with (
        SaveRequest(epath.Path(tmp_path), epath.Path(checkpoints)) as request,
        Store(checkpoints, keep_last=2) as store,
    ):
        (tmp_path / "SAVE").touch()
        until(lambda: request._is_seen)
        store.save(3, tree(seed=3), {})
        request.started(3)
        assert not request.take()
    assert storage.list_names(tmp_path) == ["checkpoints"]


def test_a_storage_that_answers_in_its_own_words_is_asked_again(tmp_path, monkeypatch):
    exists, asked = storage.exists, []

    def refuse_once(path):
        asked.append(path)
        if len(asked) == 1:
            raise LookupError("a bucket's client, for a moment")
        return exists(path)

    monkeypatch.setattr(storage, "exists", refuse_once)
    (tmp_path / "SAVE").touch()
    checkpoints = epath.Path(tmp_path / "checkpoints")
    with SaveRequest(epath.Path(tmp_path), checkpoints) as request:
        until(request.take)
    assert len(asked) > 1


def test_a_file_without_a_checkpoint_stays(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    with SaveRequest(epath.Path(tmp_path), epath.Path(checkpoints)) as request:
        (tmp_path / "SAVE").touch()
        until(request.take)
        request.started(3)  # and was never committed
    assert storage.list_names(tmp_path) == ["SAVE"]
