"""Links out of a preset, JSON without limits and misfit vocabularies are refused."""

import json
import os
import pathlib

import pytest

from gemma.presets import open_preset
from tests.gemma.presets.refusing import refused

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


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


CONFIGS = [
    ("[" * 100_000, "expected JSON, received text that is not"),
    ('{"class_name": "GemmaBackbone", "class_name": "x"}', "class_name occurs twice"),
    ('{"class_name": NaN}', "NaN is no number"),
    (" " * (9 << 20), "expected JSON of at most 8388608 bytes, received more"),
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
    refused(keras, r"Gemma model, received others \(3501000000000000 parameters\)")
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
