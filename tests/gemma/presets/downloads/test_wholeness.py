"""What a damaged file is called, by its own contents."""

import h5py
import numpy as np
import pytest

from gemma.presets.wholeness import damage
from tests.gemma.presets.downloads.loopback import (
    GOLDEN,
    HUGGING_FACE,
    KERAS,
    LOGIN_PAGE,
)

WHOLE = [
    *sorted(GOLDEN.glob("keras_hub/*/*.h5")),
    *sorted(GOLDEN.glob("*/*/*.json")),
    *sorted(GOLDEN.glob("hf/*/model.safetensors")),
    KERAS / "assets/tokenizer/vocabulary.spm",
]


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: "-".join(path.parts[-2:]))
def test_published_files_are_whole(path):
    assert damage(path) is None


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
def test_every_version_of_hdf5_states_its_length(tmp_path, libver):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["values"] = np.arange(1000)
    assert damage(path) is None
    length = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0")
    assert damage(path) == f"{length + 1:,} bytes of an HDF5 file of {length:,}"


@pytest.mark.parametrize(
    ("name", "content", "flaw"),
    [
        ("a.h5", b"", "an empty file"),
        ("a.h5", LOGIN_PAGE, "a web page"),
        ("a.h5", b"version https://git-lfs", "a Git LFS pointer"),
        ("a.json", b"version https://git-lfs", "a Git LFS pointer"),
        ("a.h5", b"PK\x03\x04", "4 bytes that are not an HDF5 file"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "8 bytes that are not an HDF5 file"),
        ("a.safetensors", b"12345", "5 bytes that are not a safetensors file"),
        ("a.safetensors", b"\x02" + b"\0" * 7 + b"[]", "10 bytes that are not a"),
        ("a.safetensors", b"\x02" + b"\0" * 7 + b"{]", "10 bytes that are not a"),
        ("a.safetensors", b"\xff" * 20, "20 bytes that are not a safetensors file"),
        ("a.json", b'{"a": 1', "text that is not JSON ("),
        ("a.json", b"[" * 100_000, "text that is not JSON ("),
        ("a.json", b'["' + b" " * (5 << 20), "5,242,882 bytes of JSON without an end"),
        ("a.spm", LOGIN_PAGE, "a web page"),
        ("a.spm", b"\n\x02", "2 bytes that are not a whole SentencePiece model"),
        ("a.spm", b"\x80" * 1000, "1,000 bytes that are not a whole Sentence"),
        ("a.spm", b"\x08\x00\x12\x00\x1a\x00", "6 bytes that are not a whole Sent"),
        ("tokenizer.model", b"version https://git-lfs", "a Git LFS pointer"),
    ],
)
def test_the_flaw_is_named(tmp_path, name, content, flaw):
    path = tmp_path / name
    path.write_bytes(content)
    assert damage(path).startswith(flaw)


def test_a_file_that_is_missing_is_damaged(tmp_path):
    assert damage(tmp_path / "a.json") == "no file"


def test_long_json_with_an_end_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b" " * (5 << 20) + b"]\n")
    assert damage(path) is None


@pytest.mark.parametrize("length", [9, 4000, 664_519])
def test_a_truncated_safetensors_file_is_damaged(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes((HUGGING_FACE / "model.safetensors").read_bytes()[:length])
    assert damage(path).startswith(f"{length:,} bytes ")


@pytest.mark.parametrize("name", ["vocabulary.spm", "tokenizer.model"])
def test_a_truncated_vocabulary_is_damaged(tmp_path, name):
    content = (KERAS / "assets/tokenizer/vocabulary.spm").read_bytes()
    path = tmp_path / name
    for length in (*range(1, 300), len(content) - 20, len(content) - 1):
        path.write_bytes(content[:length])
        flaw = f"{length:,} bytes that are not a whole SentencePiece model"
        assert damage(path) == flaw


def test_a_vocabulary_of_a_terabyte_is_not_read(tmp_path):
    path = tmp_path / "vocabulary.spm"
    with path.open("wb") as file:
        file.write(b"\n\x02")
        file.truncate(1 << 40)  # sparse
    assert damage(path).endswith("bytes that are not a whole SentencePiece model")
