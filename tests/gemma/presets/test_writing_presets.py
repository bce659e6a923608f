"""A written preset is KerasHub's file for file, and comes back equal."""

import json

import h5py
import ml_dtypes
import numpy as np
import pytest

from gemma.config import GemmaConfig
from gemma.presets import open_preset, write_preset
from tests.gemma.presets.rewriting import GOLDEN, rewrite

TINY = GemmaConfig(
    vocabulary_size=16,
    num_layers=2,
    num_query_heads=2,
    num_key_value_heads=1,
    hidden_dim=8,
    intermediate_dim=16,
    head_dim=4,
    dropout=0.1,
)


def random_arrays(config):
    shapes, rng = config.parameter_shapes(), np.random.default_rng(0)
    return {p: rng.normal(size=s).astype(np.float32) for p, s in shapes.items()}


def write_tiny(directory, **options):
    arrays = random_arrays(TINY)
    defaults = {"dtype": "float32", "vocabulary": None, "arrays": arrays.get}
    write_preset(directory, config=TINY, **defaults | options)
    return arrays


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3"])
def test_json_files_are_those_of_keras_hub(tmp_path, name):
    rewrite(name, tmp_path)
    names = ["config.json", "tokenizer.json", "preprocessor.json", "task.json"]
    for file in names:
        written, golden = tmp_path / file, GOLDEN / name / file
        assert written.read_text() == golden.read_text(), file
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    golden = json.loads((GOLDEN / name / "metadata.json").read_text())
    assert metadata.keys() == golden.keys()
    assert metadata["parameter_count"] == golden["parameter_count"]
    assert metadata["tasks"] == golden["tasks"]


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3"])
def test_files_and_hdf5_groups_are_those_of_keras_hub(tmp_path, name):
    rewrite(name, tmp_path)
    extra = {"golden.json", "golden.npz", "adapter.lora.h5"}
    assert files(tmp_path) == files(GOLDEN / name) - extra
    assert contents(tmp_path) == contents(GOLDEN / name)


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3"])
def test_a_written_preset_comes_back_equal(tmp_path, name):
    golden = rewrite(name, tmp_path)
    written = open_preset(str(tmp_path))
    assert written.config == golden.config
    assert written.vocabulary() == golden.vocabulary()
    assert written.sequence_length == golden.sequence_length
    with written.weights() as ours, golden.weights() as theirs:
        for path in theirs.paths():
            np.testing.assert_array_equal(ours.read(path), theirs.read(path))


def test_bfloat16_is_rounded_once_and_read_bit_for_bit(tmp_path):
    arrays = write_tiny(tmp_path, dtype="bfloat16")
    preset = open_preset(str(tmp_path))
    assert preset.dtype == "bfloat16"
    with preset.weights() as weights:
        for path, values in arrays.items():
            read = weights.read(path)
            assert read.dtype == weights.dtype(path) == ml_dtypes.bfloat16
            expected = values.astype(ml_dtypes.bfloat16)
            np.testing.assert_array_equal(read.view("u2"), expected.view("u2"))


def test_shards_are_split_as_keras_splits_them_and_read_as_one(tmp_path):
    arrays = write_tiny(tmp_path, dtype="bfloat16", max_shard_bytes=536)
    shard_map = json.loads((tmp_path / "model.weights.json").read_text())
    # Keras's own map for this model with max_shard_size=536 / 1024**3.
    block = "/layers/gemma_decoder_block"
    first, second = "model_00000.weights.h5", "model_00001.weights.h5"
    assert shard_map["weight_map"]["/layers/reversible_embedding/vars"] == first
    assert shard_map["weight_map"][f"{block}/attention/value_dense/vars"] == second
    assert shard_map["metadata"]["total_size"] == 2 * TINY.parameter_count
    with open_preset(str(tmp_path)).weights() as weights:
        for path, values in arrays.items():
            expected = values.astype(ml_dtypes.bfloat16)
            np.testing.assert_array_equal(weights.read(path), expected)


def test_a_shorter_preset_leaves_nothing_of_the_older_one(tmp_path):
    rewrite("gemma", tmp_path, max_shard_bytes=400_000)
    assert (tmp_path / "model_00001.weights.h5").exists()
    write_tiny(tmp_path)
    assert files(tmp_path) == {"config.json", "metadata.json", "model.weights.h5"}


def test_what_does_not_fit_the_config_is_named(tmp_path):
    with pytest.raises(ValueError, match="dtype must be bfloat16 or float32"):
        write_tiny(tmp_path, dtype="float16")
    with pytest.raises(ValueError, match=r"must have shape \(16, 8\), received \(1,\)"):
        write_tiny(tmp_path, arrays=lambda path: np.zeros(1))
    with pytest.raises(ValueError, match="at least the 512 bytes of token_embedding"):
        write_tiny(tmp_path, max_shard_bytes=100)


def files(directory):
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file()
    }


def contents(directory):
    """Map every object of the weights to its attributes, shape and dtype."""
    found = {}
    with h5py.File(directory / "model.weights.h5") as file:

        def visit(name, item):
            shape = getattr(item, "shape", None)
            found[name] = (dict(item.attrs), shape, str(getattr(item, "dtype", "")))

        file.visititems(visit)
    return found
