"""Hugging Face handles, through huggingface_hub to a server that may lie."""

import contextlib
import itertools
import json
import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.gemma.presets.downloads.conftest import Client
from tests.gemma.presets.downloads.loopback import (
    COMMIT,
    GOLDEN,
    HUGGING_FACE,
    OLD_COMMIT,
)

WEIGHTS = "model.safetensors"
ROWS = 100_000  # of 64 float32: half the file outlasts the client's 10 MiB


def served(server, name, folder=HUGGING_FACE, faults=(), file=WEIGHTS):
    server.folders[f"someone/{name}"] = {COMMIT: folder}
    server.faults[f"someone/{name}", file] = [*faults, None]
    return f"hf://someone/{name}"


def gets(server, file=WEIGHTS):
    return [line for line in server.asked(f"/{file} ") if line.startswith("GET")]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The golden model with a vocabulary that makes it 26 MB."""
    folder = tmp_path_factory.mktemp("large")
    tensors = load_file(HUGGING_FACE / WEIGHTS)
    noise = np.random.default_rng(0).standard_normal((ROWS, 64), np.float32)
    save_file(tensors | {"model.embed_tokens.weight": noise}, folder / WEIGHTS)
    config = json.loads((HUGGING_FACE / "config.json").read_text())
    config["vocab_size"] = ROWS
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_a_model_opens_with_the_arrays_that_are_published(
    client, server, digest, family
):
    folder = GOLDEN / "hf" / family
    answer = client.open(served(server, f"plain{family}", folder=folder))
    assert (answer["form"], answer["arrays"]) == ("hf", digest(folder))
    assert answer["lazy"]
    assert not server.asked("golden.npz")
    assert not server.asked("pytorch_model.bin")
    own = ("", "localhost", f"127.0.0.1:{server.server_port}")
    assert all(line.split(" ")[1] in own for line in server.requests)


def test_a_snapshot_of_links_is_read_without_the_server(
    client, offline, server, digest
):
    preset = served(server, "again")
    directory = pathlib.Path(client.open(preset)["directory"])
    assert (directory / WEIGHTS).is_symlink()
    server.requests.clear()
    assert client.open(f"{preset}@{COMMIT}")["arrays"] == digest(HUGGING_FACE)
    assert offline.open(preset)["arrays"] == digest(HUGGING_FACE)
    assert server.requests == []


def test_facts_come_without_weights(client, server, digest):
    preset = served(server, "facts")
    assert client.open(preset, weights=False)["layers"] == 4
    assert not gets(server)
    assert client.open(preset)["arrays"] == digest(HUGGING_FACE)


def test_a_revision_is_pinned(client, offline, server, digest):
    old = GOLDEN / "hf/gemma"
    server.folders["someone/pinned"] = {OLD_COMMIT: old, COMMIT: HUGGING_FACE}
    for opener, revision in itertools.product(
        (client, offline), ("old", OLD_COMMIT, "main")
    ):
        expected = digest(HUGGING_FACE if revision == "main" else old)
        assert opener.open(f"hf://someone/pinned@{revision}")["arrays"] == expected
    refused = client.open("hf://someone/pinned@v9")["refused"]
    assert "received RevisionNotFoundError: 404" in refused


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        ("cut", 2),  # with a length to match, in the answer to HEAD too
        ("short", 2),
        ("unsized", 2),
        ("page", 2),
        ("flip", 2),  # another hash than the one that names the blob
        ("slow", 1),
        (429, 2),
    ],
)
def test_what_is_not_whole_is_fetched_once_more(
    client, server, digest, fault, requests
):
    preset = served(server, f"fault-{fault}", faults=[fault])
    assert client.open(preset)["arrays"] == digest(HUGGING_FACE)
    assert len(gets(server)) == requests


@pytest.mark.parametrize(
    ("fault", "received"),
    [
        ("cut", "332,260 bytes of a safetensors file of 664,520"),
        ("page", "a web page"),
        ("flip", "content that is not "),
    ],
)
def test_a_lie_that_stays_is_refused(client, server, fault, received):
    preset = served(server, f"lie-{fault}", faults=[fault] * 3)
    refused = client.open(preset)["refused"]
    assert f"{WEIGHTS}: expected a whole file, received {received}" in refused
    assert "; run it again with a network: this file alone is fetched" in refused


@pytest.mark.parametrize("fault", ["cut", "page"])
def test_after_a_lie_the_truth_is_fetched(client, offline, server, digest, fault):
    preset = served(server, f"past-{fault}", faults=[fault] * 2)
    assert "expected a whole file" in client.open(preset)["refused"]
    assert "expected a whole file" in offline.open(preset)["refused"]
    assert client.open(preset)["arrays"] == digest(HUGGING_FACE)


def test_an_interrupted_download_goes_on(client, server, digest, large):
    preset = served(server, "drop", folder=large, faults=["drop"])
    assert client.open(preset)["arrays"] == digest(large)
    assert [line.split()[-1] for line in gets(server)][1:] == ["bytes=10485760-"]


def test_a_range_that_is_ignored_starts_anew(client, server, digest, large):
    preset = served(server, "whole", folder=large, faults=["drop", "whole"])
    assert client.open(preset)["arrays"] == digest(large)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_halfway_keeps_what_is_complete(client, server, digest, status):
    preset = served(server, f"halfway{status}", faults=[status])
    assert "HfHubHTTPError: " in client.open(preset)["refused"]
    server.requests.clear()
    assert client.open(preset)["arrays"] == digest(HUGGING_FACE)
    assert not gets(server, "config.json")


def test_a_file_that_rotted_in_the_cache_is_fetched_again(client, server, digest):
    preset = served(server, "rotten")
    weights = pathlib.Path(client.open(preset)["directory"]) / WEIGHTS
    with weights.open("r+b") as file:
        file.truncate(1000)
    assert client.open(preset)["arrays"] == digest(HUGGING_FACE)


def test_a_name_that_leads_out_of_the_cache_is_refused(client, server, cache):
    server.missing["someone/out"] = ["../../../../stolen.json"]
    preset = served(server, "out")
    refused = client.open(preset)["refused"]
    assert "Invalid filename '../../../../stolen.json'" in refused
    assert not list(cache.rglob("stolen.json"))


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (401, "accept the licence at https://huggingface.co/someone/s401, then run"),
        (403, "accept the licence at https://huggingface.co/someone/s403, then run"),
        (404, "see https://huggingface.co/someone/s404: is the name right?"),
        (429, "wait some minutes and run it again; for a higher limit run"),
        (500, "run it again later: files that are complete are kept"),
    ],
)
def test_a_refusal_says_what_to_do(client, server, status, fix):
    server.status[f"someone/s{status}"] = status
    refused = client.open(f"hf://someone/s{status}")["refused"]
    assert f"; {fix}" in refused
    assert status == 500 or refused.endswith("run `hf auth login` or set HF_TOKEN")


def test_offline_without_a_copy_says_which_variable(offline):
    refused = offline.open("hf://someone/never")["refused"]
    fix = "unset HF_HUB_OFFLINE, or pass a directory that was downloaded before"
    assert refused.endswith(f"; {fix}")


def test_an_unfinished_snapshot_is_not_taken_for_a_whole_one(client, offline, server):
    preset = served(server, "unfinished", faults=[500])
    assert "refused" in client.open(preset)
    assert "refused" in offline.open(preset)


def test_copies_instead_of_links_are_read_too(server, tmp_path, digest):
    preset = served(server, "copies", faults=["cut"])
    client = Client(server.url, tmp_path, HF_HUB_DISABLE_SYMLINKS="1")
    with contextlib.closing(client):
        answer = client.open(preset)
    assert answer["arrays"] == digest(HUGGING_FACE)
    assert not (pathlib.Path(answer["directory"]) / WEIGHTS).is_symlink()
