"""Files and objects of a run's directory, on a disk, a network mount or `gs://`.

Turns paths and bytes into files that are there whole or not at all, and what a file
system says when it refuses into `StorageError`. It refuses to know what the files
mean, and asks of remote storage only what every object store has: reading, writing a
whole object, listing, deleting, and creating what is not there yet.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
from etils import epath

from trainer.config.errors import StorageError


def is_local(path: epath.PathLike) -> bool:
    """Return whether `path` is a path of the operating system, mounts included."""
    return "://" not in os.fspath(epath.Path(path))


def exists(path: epath.PathLike) -> bool:
    """Return whether a file or directory is at `path`."""
    with _explained(path, "a path that can be looked up"):
        return epath.Path(path).exists()


def list_names(directory: epath.PathLike) -> list[str]:
    """Return the sorted names in `directory`; none if it is not there."""
    with _explained(directory, "a directory that can be listed"):
        if not epath.Path(directory).is_dir():
            return []
        return sorted(entry.name for entry in epath.Path(directory).iterdir())


def read_bytes(path: epath.PathLike) -> bytes:
    """Return the content of the file at `path`."""
    with _explained(path, "a file that can be read"):
        return epath.Path(path).read_bytes()


def read_text(path: epath.PathLike) -> str:
    """Return the content of the UTF-8 file at `path`."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, "UTF-8 text", error) from error


def read_json(path: epath.PathLike) -> Any:  # noqa: ANN401  # JSON has every type
    """Return the value of the JSON file at `path`."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise _damaged(path, "a JSON file", error) from error


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Put `content` at `path`, directories included, whole or not at all."""
    target = epath.Path(path)
    with _explained(path, "a place that can be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not is_local(target):
            target.write_bytes(content)  # an object appears when it is complete
            return
        beside = f"{os.fspath(target)}.{uuid.uuid4().hex[:8]}.partial"
        try:
            with open(beside, "wb") as file:
                file.write(content)
            _put_in_place(beside, os.fspath(target))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(beside)


def write_text(path: epath.PathLike, content: str) -> None:
    """Put `content` at `path` as UTF-8."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: epath.PathLike, value: object) -> None:
    """Put `value` at `path` as JSON that people can read."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def create(path: epath.PathLike, content: bytes) -> bool:
    """Put `content` at `path` if nothing is there, and return whether it did.

    Of several processes or machines that try at once exactly one is told True.
    """
    target = epath.Path(path)
    with _explained(path, "a place that can be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if is_local(target):
                _create_local(os.fspath(target), content)
            else:  # a precondition on the object's generation, where it has one
                system, name = fsspec.core.url_to_fs(os.fspath(target))
                system.pipe_file(name, content, mode="create")
        except FileExistsError:
            return False
    return True


def _create_local(path: str, content: bytes) -> None:
    """Give a complete file its name, so that nobody ever reads half of it."""
    beside = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with open(beside, "xb") as file:
            file.write(content)
        try:
            os.link(beside, path)
        except FileExistsError:
            raise
        except OSError:  # some mounted object stores have no links
            _create_in_place(path, content)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(beside)


def _create_in_place(path: str, content: bytes) -> None:
    """Write a new file where it stands, or leave none."""
    with open(path, "xb") as file:
        try:
            file.write(content)
            file.flush()
        except OSError:
            os.remove(path)
            raise


def upload(source: epath.PathLike, path: epath.PathLike) -> None:
    """Copy the local file or directory `source` to `path`."""
    origin = epath.Path(source)
    if origin.is_dir():
        for entry in sorted(origin.iterdir()):
            upload(entry, epath.Path(path) / entry.name)
        return
    with _explained(path, "a place that can be written"):
        target = epath.Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not is_local(target):
            origin.copy(target, overwrite=True)
            return
        beside = f"{os.fspath(target)}.{uuid.uuid4().hex[:8]}.partial"
        try:
            shutil.copyfile(origin, beside)
            _put_in_place(beside, os.fspath(target))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(beside)


def download(path: epath.PathLike, target: epath.PathLike) -> None:
    """Copy the file at `path` to the local file `target`."""
    with _explained(path, "a file that can be read"):
        epath.Path(target).parent.mkdir(parents=True, exist_ok=True)
        epath.Path(path).copy(target, overwrite=True)


def remove(path: epath.PathLike) -> None:
    """Delete the file or whole directory at `path`; nothing there is no error."""
    target = epath.Path(path)
    with _explained(path, "a path that can be deleted"):
        if target.is_dir():
            target.rmtree()
        else:
            target.unlink(missing_ok=True)


def remove_if_empty(directory: epath.PathLike) -> None:
    """Delete a local directory that nothing is in; elsewhere there are none."""
    with contextlib.suppress(OSError):  # not empty, or not there
        if is_local(directory):
            os.rmdir(os.fspath(epath.Path(directory)))


def _put_in_place(beside: str, path: str) -> None:
    """Give the complete file `beside` its name, by copying where renames fail."""
    try:
        os.replace(beside, path)
    except OSError:  # some object stores that are mounted as directories
        shutil.copyfile(beside, path)


@contextlib.contextmanager
def _explained(path: epath.PathLike, expected: str) -> Iterator[None]:
    """Turn what the storage refuses into an error that names `path`."""
    try:
        yield
    except (OSError, ImportError) as error:
        raise StorageError(
            key=os.fspath(path),
            expected=expected,
            received=f"{type(error).__name__}: {error}",
            fix=_advice(path, error),
        ) from error


def _advice(path: epath.PathLike, error: Exception) -> str:
    """Return what to do about `error`."""
    if isinstance(error, ImportError):
        if os.fspath(path).startswith("gs://"):
            return "pip install gcsfs, which reads and writes gs:// paths"
        return "a local path or gs://, or install what the message names"
    if isinstance(error, FileNotFoundError):
        return "check the path; is the directory mounted on this machine?"
    if isinstance(error, PermissionError):
        return "check the rights on it, or choose another run.root"
    if is_local(path):
        return "check free space and rights, or choose another run.root"
    return "check bucket, credentials and network, then repeat the command"


def _damaged(path: epath.PathLike, expected: str, error: ValueError) -> StorageError:
    """Return the error for a file whose content makes no sense."""
    return StorageError(
        key=os.fspath(path),
        expected=expected,
        received=f"a damaged file: {error}",
        fix="restore the file from a copy, or delete it and repeat the command",
    )
