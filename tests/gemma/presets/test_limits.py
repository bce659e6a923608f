"""JSON and headers within their limits take little memory and time."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

from gemma.presets import PresetFileError
from gemma.presets.json_file import MAX_JSON_BYTES, parse_json
from gemma.presets.safetensors_file import open_safetensors

ROOT = pathlib.Path(__file__).parents[3]
MAX_RSS_KIB = 500 * 1000
SECONDS = 5.0  # what is quadratic in the names or dims takes minutes

READ = """
import pathlib, sys
from gemma.presets import PresetFileError, open_preset
from gemma.presets.wholeness import damage

path = pathlib.Path(sys.argv[1])
if path.suffix == ".safetensors":
    print(damage(path))
try:
    open_preset(str(path.parent)).weights()
except PresetFileError as error:
    print(error)
status = pathlib.Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])  # ru_maxrss counts the parent's too
"""


def memory_of(path):
    """Return what a process says of a file, and the most memory it had (KiB)."""
    done = subprocess.run(
        [sys.executable, "-c", READ, path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *said, peak = done.stdout.splitlines()
    return "\n".join(said), int(peak)


def many(item, size):
    """Return a JSON object of many items, as long as `size` bytes allow."""
    count = (size - 8) // (len(item) + 1)
    return b'{"a":[' + b",".join([item] * count) + b"]}"


@pytest.mark.parametrize("item", [b"[]", b"{}", b'{"":0}'])
def test_json_of_many_small_things_takes_little_memory(tmp_path, item):
    (tmp_path / "config.json").write_bytes(many(item, MAX_JSON_BYTES))
    said, peak = memory_of(tmp_path / "config.json")
    assert "expected class_name (KerasHub) or model_type" in said
    assert peak < MAX_RSS_KIB


@pytest.mark.parametrize("size", [MAX_JSON_BYTES, 32 << 20])
def test_a_header_of_many_small_things_takes_little_memory(tmp_path, size):
    golden = ROOT / "tests/golden/hf/gemma2/config.json"
    (tmp_path / "config.json").write_bytes(golden.read_bytes())
    header = many(b"[]", size)
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    said, peak = memory_of(path)
    assert "bytes that are not a safetensors file" in said
    assert "received a header of" in said or "an object with dtype, shape" in said
    assert peak < MAX_RSS_KIB


def test_a_name_that_occurs_twice_is_found_among_many():
    names = ",".join(f'"{number}":0' for number in range(100_000))
    start = time.perf_counter()
    with pytest.raises(PresetFileError, match="99999 occurs twice"):
        parse_json(f'{{{names},"99999":1}}'.encode(), subject="x")
    assert time.perf_counter() - start < SECONDS


def test_a_shape_has_few_dims(tmp_path):
    entry = {"dtype": "F32", "shape": [2**62] * 200_000, "data_offsets": [0, 4]}
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"0000")
    start = time.perf_counter()
    with pytest.raises(PresetFileError, match="a: expected a shape and two offsets"):
        open_safetensors(path)
    assert time.perf_counter() - start < SECONDS
