"""Files of a run's directory: whole or not at all, on disks and object stores."""

import concurrent.futures
import errno
import os
import resource

import pytest
from etils.epath import backend

from trainer import storage
from trainer.config.errors import StorageError


def test_what_is_written_is_read(root):
    storage.write_json(f"{root}/a/facts.json", {"name": "Grüße", "step": 3})
    assert storage.read_json(f"{root}/a/facts.json") == {"name": "Grüße", "step": 3}
    assert storage.exists(f"{root}/a/facts.json")
    assert storage.list_names(f"{root}/a") == ["facts.json"]


def test_writing_again_replaces_the_whole_file(root):
    storage.write_text(f"{root}/file", "a long content")
    storage.write_text(f"{root}/file", "short")
    assert storage.read_text(f"{root}/file") == "short"
    assert storage.list_names(root) == ["file"]


def test_only_the_first_creates(root):
    assert storage.create(f"{root}/lock", b"first")
    assert not storage.create(f"{root}/lock", b"second")
    assert storage.read_bytes(f"{root}/lock") == b"first"


def test_one_of_many_threads_creates(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda _: storage.create(tmp_path / "lock", b""), range(32))
    assert sum(made) == 1


@pytest.fixture
def full(monkeypatch):
    """Return what fills the disk, for files of this process."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_cannot_be_filled_is_not_created(tmp_path, full):
    full()
    with pytest.raises(StorageError):
        storage.create(tmp_path / "lock", b"mine")
    assert storage.list_names(tmp_path) == []


@pytest.mark.parametrize("is_full", [False, True])
def test_a_mount_without_links_is_written_in_place(
    tmp_path, monkeypatch, full, is_full
):
    def refuse(source, target):
        if is_full:
            full()
        raise OSError(errno.EPERM, "links are not supported here")

    monkeypatch.setattr(os, "link", refuse)
    if is_full:
        with pytest.raises(StorageError):
            storage.create(tmp_path / "lock", b"mine")
        assert storage.list_names(tmp_path) == []
        return
    assert storage.create(tmp_path / "lock", b"mine")
    assert not storage.create(tmp_path / "lock", b"yours")
    assert storage.read_bytes(tmp_path / "lock") == b"mine"


def test_directories_go_up_and_files_come_down(root, tmp_path):
    (tmp_path / "local" / "below").mkdir(parents=True)
    (tmp_path / "local" / "below" / "weights").write_bytes(b"\x00\x01")
    storage.upload(tmp_path / "local", f"{root}/artifacts")
    storage.download(f"{root}/artifacts/below/weights", tmp_path / "back" / "weights")
    assert (tmp_path / "back" / "weights").read_bytes() == b"\x00\x01"


def test_removing_takes_files_directories_and_nothing(root):
    storage.write_text(f"{root}/a/b/file", "")
    storage.remove(f"{root}/a")
    storage.remove(f"{root}/a")
    assert not storage.exists(f"{root}/a/b/file")
    assert storage.list_names(f"{root}/a") == []


def test_only_an_empty_directory_is_removed_for_being_empty(tmp_path):
    storage.write_text(tmp_path / "a/file", "")
    storage.remove_if_empty(tmp_path / "a")
    assert storage.list_names(tmp_path / "a") == ["file"]
    storage.remove(tmp_path / "a/file")
    storage.remove_if_empty(tmp_path / "a")
    storage.remove_if_empty(tmp_path / "a")
    assert storage.list_names(tmp_path) == []


def test_a_mount_without_renames_is_written_by_copying(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "renames are not supported here")

    monkeypatch.setattr(os, "replace", refuse)
    storage.write_text(tmp_path / "file", "content")
    assert storage.read_text(tmp_path / "file") == "content"
    assert storage.list_names(tmp_path) == ["file"]


def test_a_missing_file_is_a_storage_error(root):
    with pytest.raises(StorageError, match="a file that can be read") as caught:
        storage.read_text(f"{root}/none")
    assert caught.value.exit_code == 7
    assert "check the path" in caught.value.fix


def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="a place that can be written"):
        storage.write_text(tmp_path / "file" / "below", "")


def test_damaged_text_and_json_are_named(tmp_path):
    (tmp_path / "facts.json").write_bytes(b'{"step": ')
    with pytest.raises(StorageError, match="a damaged file"):
        storage.read_json(tmp_path / "facts.json")
    (tmp_path / "notes").write_bytes(b"\xff\xfe")
    with pytest.raises(StorageError, match="UTF-8 text"):
        storage.read_text(tmp_path / "notes")


def test_another_store_is_not_answered_with_the_client_of_gs():
    backend.fsspec_backend._get_filesystem.cache_clear()
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(StorageError, match="a local path or gs://") as caught:
            storage.read_text("s3://bucket/file")
        assert "s3fs" in caught.value.received
    else:
        pytest.skip("s3fs is installed")


def test_gs_without_its_client_says_what_to_install():
    backend.fsspec_backend._get_filesystem.cache_clear()
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(StorageError, match="pip install gcsfs"):
            storage.read_text("gs://bucket/file")
    else:
        pytest.skip("gcsfs is installed")
