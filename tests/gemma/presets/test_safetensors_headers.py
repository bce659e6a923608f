"""A safetensors header that lies about its file is refused by name."""

import json
import shutil

import pytest

from tests.gemma.presets.refusing import refused


def with_header(hf, change):
    """Rewrite the header of the weights with some entries changed."""
    path = hf / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    changed = change(header) or header
    spelt = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    path.write_bytes(len(spelt).to_bytes(8, "little") + spelt + content[8 + length :])


NORM = "model.norm.weight"


def overlap(header):
    first, *_ = (name for name in header if name not in (NORM, "__metadata__"))
    start = header[first]["data_offsets"][0]
    shape = header[NORM]["shape"][0]
    header[NORM]["data_offsets"] = [start, start + 4 * shape]


def gap(header):
    offsets = header[NORM]["data_offsets"]
    header[NORM]["data_offsets"] = [offsets[0] + 4, offsets[1] + 4]


def negative(header):
    header[NORM]["data_offsets"] = [-4, 252]


def huge_shape(header):
    header[NORM]["shape"] = [1 << 62, 1 << 62]


def beyond_the_end(header):
    last = max(v["data_offsets"][1] for k, v in header.items() if k != "__metadata__")
    header["model.extra"] = {
        "dtype": "F32",
        "shape": [1 << 40],
        "data_offsets": [last, last + (4 << 40)],
    }


def missing(header):
    last = max(
        (k for k in header if k != "__metadata__"),
        key=lambda k: header[k]["data_offsets"][1],
    )
    del header[last]


def unknown_dtype(header):
    header[NORM]["dtype"] = "F4_E2M1"


def boolean_shape(header):
    header[NORM]["shape"] = [True]


def three_offsets(header):
    header[NORM]["data_offsets"] = [0, 4, 8]


def no_object(header):
    header[NORM] = "pickle"


def twice(header):
    text = json.dumps(header)
    return (text[:-1] + f', "{NORM}": {json.dumps(header[NORM])}' + "}").encode()


def nested(header):
    return b'{"a":' + b"[" * 100_000


def no_json(header):
    return b"\x80\x04."


def a_list(header):
    return b"[]"


HEADERS = {
    overlap: "expected float32 .* from byte",
    gap: "expected float32 .* from byte|received",
    negative: "expected a shape and two offsets",
    huge_shape: "expected float32 .4611686018427387904",
    beyond_the_end: "expected 4398046511104 bytes from byte .* received a file of",
    missing: "the end: expected a file of",
    unknown_dtype: "norm.weight: expected a dtype that numpy has, received F4_E2M1",
    boolean_shape: "expected a shape and two offsets",
    three_offsets: "expected a shape and two offsets",
    no_object: "expected an object with dtype, shape and data_offsets, received pickle",
    twice: f"received text that is not .{NORM} occurs twice",
    nested: "header: expected JSON, received text that is not",
    no_json: "header: expected JSON, received text that is not",
    a_list: "header: expected a JSON object, received list",
}


@pytest.mark.parametrize("change", HEADERS, ids=lambda change: change.__name__)
def test_a_safetensors_header_that_lies_is_refused(hf, change):
    with_header(hf, change)
    refused(hf, HEADERS[change])


@pytest.mark.parametrize("length", [1 << 63, 100 << 20, (1 << 64) - 1])
def test_a_header_longer_than_its_file_is_refused(hf, length):
    path = hf / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(hf, f"expected a whole safetensors file, received a header of {length} b")


def test_a_file_too_short_for_a_header_is_refused(hf):
    (hf / "model.safetensors").write_bytes(b"\x08\x00")
    refused(hf, "expected a whole safetensors file, received 2 bytes")


def test_a_tensor_in_two_files_is_refused(hf):
    first = hf / "a.safetensors"
    (hf / "model.safetensors").rename(first)
    shutil.copy(first, hf / "b.safetensors")
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (hf / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(hf, "expected every tensor once, received .* in several files")
