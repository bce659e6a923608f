"""A preset that could not be written whole leaves the older one as it was."""

import pathlib
import shutil

import numpy as np
import pytest

import gemma
from gemma.presets import open_preset, write_hf, write_preset
from tests.object_store import object_store

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
WRITERS = [write_preset, write_hf]


@pytest.fixture(params=["keras_hub/gemma3", "hf/gemma3"])
def directory(request, tmp_path):
    shutil.copytree(GOLDEN / request.param, tmp_path / "preset")
    return tmp_path / "preset"


def files(directory):
    """Map every file below a directory to its bytes."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def write(writer, directory, **options):
    preset = open_preset(str(GOLDEN / "keras_hub/gemma2"))
    with preset.weights() as weights:
        defaults = {"dtype": "float32", "arrays": weights.read}
        defaults |= {"config": preset.config, "vocabulary": preset.vocabulary()}
        writer(directory, **defaults | options)
    return preset


@pytest.mark.parametrize("writer", WRITERS)
def test_an_impossible_shard_size_touches_nothing(directory, writer):
    before = files(directory)
    with pytest.raises(ValueError, match="max_shard_bytes must be at least"):
        write(writer, directory, max_shard_bytes=1000)
    assert files(directory) == before


@pytest.mark.parametrize("writer", WRITERS)
def test_an_interruption_leaves_the_older_preset(directory, writer):
    before, calls = files(directory), []

    def interrupted(path):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.zeros(config.parameter_shapes()[path], np.float32)

    config = open_preset(str(GOLDEN / "keras_hub/gemma2")).config
    with pytest.raises(KeyboardInterrupt):
        write(writer, directory, arrays=interrupted)
    assert files(directory) == before
    open_preset(str(directory)).weights().close()


def test_a_failure_while_files_change_places_is_undone(tmp_path):
    shutil.copytree(GOLDEN / "hf/gemma3", tmp_path / "preset")
    (tmp_path / "preset/assets").write_text("where the vocabulary's folder should be")
    before = files(tmp_path / "preset")
    with pytest.raises(OSError, match="assets"):
        write(write_preset, tmp_path / "preset")
    assert files(tmp_path / "preset") == before


def test_what_a_killed_writer_left_is_removed_unless_it_is_the_older_preset(tmp_path):
    for name in (".preset-1/new/model.safetensors", ".preset-2/old/config.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("left")
    write(write_hf, tmp_path)
    assert [path.name for path in tmp_path.glob(".preset-*")] == [".preset-2"]


@pytest.mark.parametrize("method", ["save_to_preset", "save_to_hf"])
def test_a_quantized_model_is_saved_over_the_preset_it_reads(tmp_path, method):
    directory = tmp_path / "preset"
    shutil.copytree(GOLDEN / "keras_hub/gemma3", directory)
    with open_preset(str(directory)).weights() as weights:
        expected = {path: weights.read(path) for path in weights.paths()}
    (directory / "README.md").write_text("kept")
    backbone = gemma.Backbone.from_preset(str(directory), quantize="int8")
    getattr(backbone, method)(str(directory))
    with open_preset(str(directory)).weights() as weights:
        for path, values in expected.items():
            np.testing.assert_array_equal(weights.read(path), values)
    assert (directory / "README.md").read_text() == "kept"
    assert not list(directory.glob(".preset-*"))


@pytest.fixture
def bucket():
    """An object store at s3://, to which etils has the same way as gs://."""
    with object_store("s3") as store:
        yield store


@pytest.mark.parametrize("writer", WRITERS)
def test_a_preset_in_an_object_store_is_replaced(bucket, writer):
    other = WRITERS[1 - WRITERS.index(writer)]
    write(other, "s3://models/tiny", max_shard_bytes=500_000)
    written = write(writer, "s3://models/tiny")
    assert not [name for name in bucket.find("models/tiny") if ".preset-" in name]
    preset = open_preset("s3://models/tiny")
    assert preset.form == ("keras" if writer is write_preset else "hf")
    assert preset.vocabulary() == written.vocabulary()
    with preset.weights() as ours, written.weights() as theirs:
        for path in theirs.paths():
            np.testing.assert_array_equal(ours.read(path), theirs.read(path))
