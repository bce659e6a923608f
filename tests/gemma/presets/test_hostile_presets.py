"""Files that are damaged, or made to do more than be read, are refused by name."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gemma.presets import PresetFileError, open_preset
from gemma.presets.source import normalise_index
from tests.gemma.presets.refusing import refused

QUERY = "layers/gemma_decoder_block/attention/query_dense/vars/0"


DAMAGED = {
    b"": "an empty file",
    b"version https://git-lfs.github.com/spec/v1\noid": "a Git LFS pointer.*lfs pull",
    b"<!DOCTYPE html><html>": "a web page; log in and accept the licence",
    b"PK\x03\x04abcdefgh": "a file that begins with b'PK",
}


@pytest.mark.parametrize("content", DAMAGED)
def test_what_is_no_hdf5_is_called_what_it_is(keras, content):
    (keras / "model.weights.h5").write_bytes(content)
    refused(keras, DAMAGED[content])


def test_a_cut_off_file_is_refused(keras):
    path = keras / "model.weights.h5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(keras, "expected a whole HDF5 file")


def test_a_directory_without_weights_is_refused(keras, hf):
    (keras / "model.weights.h5").unlink()
    refused(keras, "expected model.weights.h5 or model.weights.json, received neither")
    (hf / "model.safetensors").unlink()
    refused(hf, "pickled weights are never opened")


def test_every_variable_is_there_with_its_shape_and_none_is_left(keras):
    path = keras / "model.weights.h5"
    with h5py.File(path, "a") as file:
        values = file[QUERY][()]
        del file[QUERY]
    refused(keras, "none for decoder_block_0/attention/query/kernel")
    with h5py.File(path, "a") as file:
        file[QUERY] = values[:2]
    refused(keras, r"query/kernel: expected shape \(4, 48, 16\), received shape \(2,")
    with h5py.File(path, "a") as file:
        del file[QUERY]
        file[QUERY] = values
        file["layers/other/vars/0"] = values
    refused(keras, "also layers/other/vars/0")


def test_a_dataset_that_holds_no_numbers_is_refused(keras):
    with h5py.File(keras / "model.weights.h5", "a") as file:
        del file[QUERY]
        file[QUERY] = np.full((4, 48, 16), b"abcd")
    refused(keras, "expected floating point numbers, received dtype")


@pytest.mark.parametrize("name", ["../x.weights.h5", "/etc/hostname", "x.bin", 3, [{}]])
def test_a_shard_map_names_only_files_beside_it(keras, name):
    (keras / "model.weights.h5").unlink()
    shards = {"weight_map": {"/layers/x/vars": name}}
    (keras / "model.weights.json").write_text(json.dumps(shards))
    refused(keras, "names of .weights.h5 files in the same directory")


def test_a_variable_in_two_shards_is_refused(keras):
    first = keras / "model_00000.weights.h5"
    (keras / "model.weights.h5").rename(first)
    shutil.copy(first, keras / "model_00001.weights.h5")
    weight_map = {"/a": first.name, "/b": "model_00001.weights.h5"}
    (keras / "model.weights.json").write_text(json.dumps({"weight_map": weight_map}))
    refused(keras, "expected every variable once")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "expected JSON, received text that is not"), ("[]", "a JSON object")],
)
def test_a_config_that_is_no_object_is_refused(keras, content, message):
    (keras / "config.json").write_text(content)
    refused(keras, message)


KERAS_CONFIGS = [
    (
        {"class_name": "Lambda"},
        "class_name: expected GemmaBackbone or .*, received Lambda",
    ),
    ({"config": None}, "config: expected an object with the dimensions"),
    ({"config.lambda": "x"}, "received also lambda"),
    ({"config.num_layers": "3"}, "config.num_layers: expected a number"),
    ({"config.num_layers": 0}, "num_layers must be a positive integer"),
    ({"config.final_logit_soft_cap": True}, "soft_cap: expected a number or null"),
    ({"config.use_post_ffw_norm": 1}, "use_post_ffw_norm: expected true or false"),
    ({"config.dtype": "int8"}, "config.dtype: expected float32 or bfloat16"),
    ({"config.dtype": {"class_name": "DTypePolicyMap"}}, "received DTypePolicyMap"),
]


@pytest.mark.parametrize(("changes", "message"), KERAS_CONFIGS)
def test_a_keras_config_is_read_as_dimensions_only(keras, changes, message):
    values = json.loads((keras / "config.json").read_text())
    for key, value in changes.items():
        holder = values["config"] if "." in key else values
        holder[key.rsplit(".", 1)[-1]] = value
    (keras / "config.json").write_text(json.dumps(values))
    refused(keras, message)


def test_a_missing_dimension_is_named(keras):
    values = json.loads((keras / "config.json").read_text())
    del values["config"]["hidden_dim"]
    (keras / "config.json").write_text(json.dumps(values))
    refused(keras, "received none for hidden_dim")


def test_the_module_that_a_config_names_is_not_imported(keras):
    values = json.loads((keras / "config.json").read_text())
    values |= {"module": "antigravity", "registered_name": "os>system"}
    (keras / "config.json").write_text(json.dumps(values))
    with open_preset(str(keras)).weights() as weights:
        assert weights.paths()


def test_a_cut_off_safetensors_file_is_refused(hf):
    path = hf / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(hf, r"expected \d+ bytes from byte \d+ on, received a file of")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
    refused(hf, "a Git LFS pointer")
    path.write_bytes(b"")
    refused(hf, "an empty file")


def test_unexpected_and_missing_tensors_are_named(hf):
    path = hf / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"model.layers.0.self_attn.q_norm.weight": tensors[NORM]}, path)
    refused(hf, "received also model.layers.0.self_attn.q_norm.weight")
    save_file({name: v for name, v in tensors.items() if name != NORM}, path)
    refused(hf, "received none for model.norm.weight")


NORM = "model.norm.weight"
EMBEDDING = "model.embed_tokens.weight"


def test_a_head_must_be_the_embedding(hf):
    path = hf / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors[EMBEDDING]}, path)
    open_preset(str(hf)).weights().close()
    save_file(tensors | {"lm_head.weight": tensors[EMBEDDING] + 1}, path)
    refused(hf, "lm_head.weight: expected the embedding")


def test_quantized_tensors_are_refused(hf):
    path = hf / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {NORM: tensors[NORM].astype(np.int8)}, path)
    refused(hf, "norm.weight: expected float32 or bfloat16 or float16, received int8")


def test_an_index_joins_its_files_and_names_only_those_beside_it(hf):
    path, index = hf / "model.safetensors", hf / "model.safetensors.index.json"
    tensors = load_file(path)
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, members in parts.items():
        save_file({name: tensors[name] for name in members}, hf / part)
    path.unlink()
    weight_map = {name: part for part, members in parts.items() for name in members}
    index.write_text(json.dumps({"weight_map": weight_map}))
    with open_preset(str(hf)).weights() as weights:
        read = weights.read("token_embedding/embeddings")
        np.testing.assert_array_equal(read, tensors[EMBEDDING])
    for outside in ("../a.safetensors", ["../a.safetensors"], {"a": 1}, None):
        index.write_text(json.dumps({"weight_map": {EMBEDDING: outside}}))
        refused(hf, "names of .safetensors files in the same directory")


def test_a_built_in_preset_without_weights_says_so(tmp_path):
    tiny = open_preset("gemma2_tiny_en")
    unset = {"form": "table", "handle": None, "has_weights": False}
    empty = dataclasses.replace(tiny, directory=tmp_path, **unset)
    with pytest.raises(PresetFileError, match="expected weights in the package"):
        empty.weights()


def test_an_index_has_no_steps_and_no_surplus_dims():
    assert normalise_index((slice(1, None),), (4, 5)) == (slice(1, 4), slice(0, 5))
    with pytest.raises(ValueError, match="index must have steps of 1"):
        normalise_index((slice(0, 4, 2),), (4,))
    with pytest.raises(ValueError, match="index must have at most 1 slices"):
        normalise_index((slice(0, 4), slice(0, 1)), (4,))
