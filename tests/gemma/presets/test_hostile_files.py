"""Files that lie about sizes, places or meaning are refused, cheaply and by name."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from gemma.presets import PresetFileError, open_preset

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
REPOSITORY = pathlib.Path(__file__).parents[3]


def copied(name, tmp_path):
    target = tmp_path / "preset"
    shutil.copytree(GOLDEN / name, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


@pytest.fixture
def keras(tmp_path):
    return copied("keras_hub/gemma2", tmp_path)


@pytest.fixture
def hf(tmp_path):
    return copied("hf/gemma2", tmp_path)


def refused(directory, match):
    with pytest.raises(PresetFileError, match=match):
        preset = open_preset(str(directory))
        preset.vocabulary()
        preset.weights()


# --- safetensors headers ---


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


# --- links ---


LINKED = [
    "config.json",
    "model.weights.h5",
    "preprocessor.json",
    "assets/tokenizer/vocabulary.spm",
]


@pytest.mark.parametrize("name", LINKED)
def test_a_link_out_of_the_preset_is_refused(keras, tmp_path, name):
    outside = tmp_path / "outside"
    (keras / name).rename(outside)
    (keras / name).symlink_to(outside)
    refused(keras, f"{name}: expected a file of the preset itself, received a link to")


def test_a_folder_that_leads_out_of_the_preset_is_refused(keras, tmp_path):
    (keras / "assets").rename(tmp_path / "assets")
    (keras / "assets").symlink_to(tmp_path / "assets", target_is_directory=True)
    refused(keras, "expected a file of the preset itself, received a link to")


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "model.safetensors"])
def test_a_link_out_of_a_hugging_face_directory_is_refused(hf, tmp_path, name):
    if "index" in name:
        (hf / "model.safetensors").unlink()
    outside = tmp_path / "outside"
    outside.write_text("{}")
    (hf / name).unlink(missing_ok=True)
    (hf / name).symlink_to(outside)
    refused(hf, f"{name}: expected a file of the preset itself, received a link to")


def test_links_of_the_hugging_face_cache_are_followed(tmp_path):
    repository = tmp_path / "models--google--gemma"
    snapshot = repository / "snapshots" / "0123abc"
    blobs = repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for source in sorted((GOLDEN / "hf/gemma2").iterdir()):
        blob = blobs / f"sha-{source.name}"
        blob.write_bytes(source.read_bytes())
        (snapshot / source.name).symlink_to(
            os.path.relpath(blob, snapshot), target_is_directory=False
        )
    with open_preset(str(snapshot)).weights() as weights:
        assert weights.paths()
    # a store of another repository is not this one's
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("/etc/hostname")
    refused(snapshot, "expected a file of the preset itself, received a link to")


def test_a_preset_may_itself_be_a_link(keras, tmp_path):
    (tmp_path / "link").symlink_to(keras, target_is_directory=True)
    with open_preset(str(tmp_path / "link")).weights() as weights:
        assert weights.paths()


# --- JSON and vocabulary ---


CONFIGS = [
    ("[" * 100_000, "expected JSON, received text that is not"),
    ('{"class_name": "GemmaBackbone", "class_name": "x"}', "class_name occurs twice"),
    ('{"class_name": NaN}', "NaN is no number"),
    (" " * (17 << 20), "expected JSON of at most 16777216 bytes, received more"),
    ("\x00", "expected JSON, received text that is not"),
]


@pytest.mark.parametrize(("content", "message"), CONFIGS, ids=range(len(CONFIGS)))
def test_json_beyond_its_limits_is_refused(keras, content, message):
    (keras / "config.json").write_text(content)
    refused(keras, f"config.json: .*{message}|{message}")


def dimensions(keras, **changes):
    path = keras / "config.json"
    values = json.loads(path.read_text())
    values["config"] |= changes
    path.write_text(json.dumps(values))


def test_dimensions_that_would_fill_the_memory_are_refused(keras):
    dimensions(keras, num_layers=10**12)
    refused(keras, "num_layers must be at most 1000, received 1000000000000")
    dimensions(keras, num_layers=3, hidden_dim=10**12)
    refused(
        keras, "expected dimensions of a Gemma model, received others .* parameters"
    )
    dimensions(keras, hidden_dim=1 << 20)
    refused(keras, r"embeddings: expected shape \(2048, 1048576\), received shape \(20")


def test_a_tokenizer_with_more_pieces_than_embeddings_is_refused(keras):
    dimensions(keras, vocabulary_size=2000)
    refused(keras, "spm: expected at most 2000 pieces, .* received 2048 pieces")


VOCABULARIES = [
    (b"", "an empty file"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    (b"<!DOCTYPE html><html>", "a web page; log in and accept the licence"),
    (b"\x80\x04pickle", "expected a SentencePiece model, received 8 bytes that are"),
]


@pytest.mark.parametrize(("content", "message"), VOCABULARIES)
def test_what_is_no_vocabulary_is_called_what_it_is(keras, content, message):
    (keras / "assets/tokenizer/vocabulary.spm").write_bytes(content)
    refused(keras, message)


def test_a_vocabulary_of_many_megabytes_is_not_read(keras):
    with (keras / "assets/tokenizer/vocabulary.spm").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: a terabyte of nothing
    refused(keras, "expected at most 67108864 bytes, received 1099511627776")


# --- nothing is imported, nothing is read outside, little memory is used ---


WATCHED = """
import json, resource, sys
directory = sys.argv[1]
from gemma.presets import PresetFileError, open_preset
import gemma.tokenizers, h5py, encodings.idna
seen = []
def hook(event, args):
    if event == "import" and args[0] in ("antigravity", "os_evil", "keras", "torch"):
        seen.append(["import", args[0]])
    if event in ("exec", "subprocess.Popen", "os.system", "socket.connect"):
        seen.append([event, str(args[0])[:80]])
    if event == "open" and isinstance(args[0], str):
        if not args[0].startswith((directory, sys.prefix, sys.base_prefix, "/proc")):
            seen.append(["open", args[0]])
sys.addaudithook(hook)
message = None
try:
    preset = open_preset(directory)
    preset.vocabulary()
    with preset.weights() as weights:
        for path in weights.paths():
            weights.read(path)
except PresetFileError as error:
    message = str(error)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"message": message, "seen": seen, "peak_mb": peak / 1024}))
"""


def watch(directory):
    """Open a preset in a process of its own and tell what it touched."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(directory)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def lambda_layer(keras):
    # CVE-2024-3660, CVE-2026-12481
    path = keras / "config.json"
    values = json.loads(path.read_text())
    values |= {"class_name": "Lambda", "module": "keras.layers"}
    values["config"] |= {"function": {"class_name": "__lambda__"}}
    path.write_text(json.dumps(values))


def foreign_module(keras):
    # CVE-2025-1550: a module of the attacker's choice is not imported
    path = keras / "config.json"
    values = json.loads(path.read_text())
    values |= {"module": "antigravity", "registered_name": "os>system"}
    path.write_text(json.dumps(values))


def gadget(keras):
    # CVE-2025-8747, CVE-2025-9906: functions of Keras itself named in a config
    dimensions(keras, dtype={"module": "keras.utils", "class_name": "get_file"})


def unsafe_switch(keras):
    # CVE-2025-9906
    path = keras / "config.json"
    values = {"module": "keras.config", "class_name": "enable_unsafe_deserialization"}
    path.write_text(json.dumps(values | {"config": {}}))


def foreign_vocabulary(keras):
    # CVE-2025-12058: a path in the tokenizer's config is not opened
    path = keras / "tokenizer.json"
    values = json.loads(path.read_text())
    values["config"]["proto"] = "/etc/hostname"
    path.write_text(json.dumps(values))


def foreign_task(keras):
    # CVE-2025-49655, CVE-2026-1462: other files' classes are never looked at
    task = {"module": "antigravity", "class_name": "TorchModuleWrapper", "config": {}}
    for name in ("task.json", "preprocessor.json"):
        (keras / name).write_text(json.dumps(task))


PROOF = {
    lambda_layer: "class_name: expected GemmaBackbone or Gemma3Backbone",
    foreign_module: None,
    gadget: "config.dtype: expected float32",
    unsafe_switch: "class_name: expected GemmaBackbone or Gemma3Backbone",
    foreign_vocabulary: None,
    foreign_task: None,
}


@pytest.mark.parametrize("change", PROOF, ids=lambda change: change.__name__)
def test_nothing_is_imported_run_or_read_outside_the_preset(keras, change):
    change(keras)
    found = watch(keras)
    assert found["seen"] == []
    assert found["peak_mb"] < 500
    if PROOF[change] is None:
        assert found["message"] is None
    else:
        assert PROOF[change] in found["message"]
