"""Whether a file that was downloaded is all there, told by its own contents.

Turns a path into what is wrong with the file, or None. It reads headers and small
files only, knows no model, and refuses to trust a length that a server announced.
"""

from __future__ import annotations

import json
import os
import pathlib

from gemma.presets.errors import PresetFileError
from gemma.presets.mapping import MappedFile
from gemma.presets.safetensors_file import read_header
from gemma.presets.signatures import HDF5, impostor, read_head
from gemma.presets.vocabulary import MAX_VOCABULARY_BYTES

REFETCH = "run it again with a network: this file alone is fetched anew"
"""What to do where a file is damaged though it was fetched twice."""

_TAIL_BYTES = 512
_LENGTH_DELIMITED = 2
_MAX_VARINT_BITS = 64
_SETTINGS = {2, 3}
"""Fields of a SentencePiece model: of its trainer and its normalizer."""
_PARSED_JSON_BYTES = 1 << 22
"""Larger than every configuration and index; a vocabulary's end is looked at only."""


def damage(path: pathlib.Path) -> str | None:
    """Return what is wrong with a file, None where it is whole.

    An HDF5 or safetensors file states where it ends; JSON ends once, and a
    vocabulary with the settings that stand behind its pieces.
    """
    if not path.is_file():
        return "no file"
    head, size = read_head(path), path.stat().st_size
    if flaw := impostor(head):
        return flaw
    if path.suffix == ".h5":
        return _length_damage(_hdf5_length(head), size, kind="an HDF5 file")
    if path.suffix == ".safetensors":
        length = _safetensors_length(path)
        return _length_damage(length, size, kind="a safetensors file")
    if path.suffix in (".spm", ".model"):
        return _vocabulary_damage(path, size)
    if path.suffix == ".json":
        return _json_damage(path, size)
    return None


def _length_damage(length: int | None, size: int, *, kind: str) -> str | None:
    if length is None:
        return f"{size:,} bytes that are not {kind}"
    if length != size:
        return f"{size:,} bytes of {kind} of {length:,}"
    return None


def _hdf5_length(head: bytes) -> int | None:
    """Return the end of file that a superblock states.

    Source: HDF5 File Format Specification, section II.A; with 8-byte offsets.
    """
    version = head[8] if len(head) >= 64 and head.startswith(HDF5) else -1
    if version in (0, 1) and head[13] == 8:
        start = 40 + 4 * version  # version 1 has two more numbers and a gap
    elif version in (2, 3) and head[9] == 8:
        start = 28
    else:
        return None
    return int.from_bytes(head[start : start + 8], "little")


def _safetensors_length(path: pathlib.Path) -> int | None:
    """Return the length that the header states: itself and the last tensor's end."""
    try:
        tensors, start = read_header(MappedFile(path))
        ends = [tensor["data_offsets"][1] for tensor in tensors.values()]
        return start + max(ends, default=0)
    except (PresetFileError, LookupError, TypeError):
        return None


def _vocabulary_damage(path: pathlib.Path, size: int) -> str | None:
    if size <= MAX_VOCABULARY_BYTES and _fields(path.read_bytes()) >= _SETTINGS:
        return None
    return f"{size:,} bytes that are not a whole SentencePiece model"


def _fields(content: bytes) -> set[int]:
    """Return the numbers of a protocol buffer's fields; none where it is cut.

    Source: protobuf.dev/programming-guides/encoding; all are length-delimited here.
    """
    found, place = set(), 0
    try:
        while place < len(content):
            key, place = _varint(content, place)
            length, place = _varint(content, place)
            found.add(key >> 3)
            place += length
            if key & 7 != _LENGTH_DELIMITED:
                return set()
    except IndexError:
        return set()
    return found if place == len(content) else set()


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """Return the number that begins at `place`, and where it ends."""
    value = shift = 0
    while content[place] & 0x80 and shift < _MAX_VARINT_BITS:
        value |= (content[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    return value | content[place] << shift, place + 1


def _json_damage(path: pathlib.Path, size: int) -> str | None:
    if size > _PARSED_JSON_BYTES:
        with path.open("rb") as file:
            file.seek(-_TAIL_BYTES, os.SEEK_END)
            ends = file.read().rstrip().endswith((b"}", b"]"))
        return None if ends else f"{size:,} bytes of JSON without an end"
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return f"text that is not JSON ({error})"
    return None
