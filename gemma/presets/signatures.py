"""What a file is by its first bytes, where it is not what its name says.

Turns the head of a file into what a download that went wrong left instead: nothing, a
web page or a Git LFS pointer. It refuses to know what follows the first bytes.
"""

from __future__ import annotations

import pathlib

from gemma.presets.errors import PresetFileError

HDF5 = b"\x89HDF\r\n\x1a\n"
HEAD_BYTES = 512

_FETCH = "fetch the file again from where it was published"
_FIXES = {
    "an empty file": _FETCH,
    "a Git LFS pointer": "run `git lfs pull` in its repository",
    "a web page": "log in and accept the licence, then fetch the file again",
}


def read_head(path: pathlib.Path) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def impostor(head: bytes) -> str | None:
    """Return what a file is that can be no file of a preset, None if it may be one."""
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page"
    return None


def check_signature(path: pathlib.Path, signature: bytes, *, kind: str) -> None:
    """Refuse a file that does not begin with `signature`, and say what it is.

    Raises:
        PresetFileError: Names a Git LFS pointer and a web page for what they are.
    """
    if not path.is_file():
        raise PresetFileError(path, expected=kind, received="no file", fix=_FETCH)
    head = read_head(path)
    received = impostor(head)
    if received is None and not head.startswith(signature):
        received = f"a file that begins with {head[:8]!r}"
    if received is not None:
        fix = _FIXES.get(received, _FETCH)
        raise PresetFileError(path, expected=kind, received=received, fix=fix)
