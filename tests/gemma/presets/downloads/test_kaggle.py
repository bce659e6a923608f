"""Kaggle handles, through kagglehub to a server that may drop, cut and lie."""

import contextlib
import json
import pathlib
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from gemma.presets.opening import PACKAGE_DIRECTORY
from gemma.presets.table import BUILT_IN
from tests.gemma.presets.downloads.conftest import Client
from tests.gemma.presets.downloads.loopback import GOLDEN, HUGGING_FACE, KERAS

WEIGHTS = "model.weights.h5"
VOCABULARY = "assets/tokenizer/vocabulary.spm"
LARGE = PACKAGE_DIRECTORY / "gemma2_tiny_en"  # its parts outlast kagglehub's 1 MiB
LOG_IN = "set KAGGLE_USERNAME and KAGGLE_KEY or write ~/.kaggle/kaggle.json"


def handle(name, version="/1"):
    return f"kaggle://someone/{name}/keras/tiny_en{version}"


def served(server, name, folder=KERAS, missing=(), faults=(), file=WEIGHTS):
    server.folders[f"someone/{name}"] = {"1": folder}
    server.missing[f"someone/{name}"] = missing
    server.faults[f"someone/{name}", file] = [*faults, None]


def gets(server, file=WEIGHTS):
    return [line for line in server.asked(f"/{file} ") if line.startswith("GET")]


def test_a_model_opens_with_the_arrays_that_are_published(client, server, digest):
    answer = client.open(handle("plain"))
    assert (answer["form"], answer["arrays"]) == ("keras", digest(KERAS))
    assert answer["vocabulary"] == (KERAS / VOCABULARY).stat().st_size
    assert answer["lazy"]
    assert not server.asked("golden.npz")
    assert {line.split()[1] for line in server.requests} <= {
        "localhost",
        f"127.0.0.1:{server.server_port}",
    }


def test_a_second_call_asks_the_server_nothing(client, offline, server, digest):
    client.open(handle("again"))
    server.requests.clear()
    assert client.open(handle("again"))["arrays"] == digest(KERAS)
    assert offline.open(handle("again"))["arrays"] == digest(KERAS)
    assert server.requests == []


def test_facts_and_vocabulary_come_without_weights(client, server, digest):
    answer = client.open(handle("facts", ""), weights=False)
    assert answer["layers"] == 3
    assert answer["vocabulary"] == (KERAS / VOCABULARY).stat().st_size
    assert not gets(server)
    assert client.open(handle("facts", ""))["arrays"] == digest(KERAS)


def test_a_version_is_pinned_and_none_means_the_newest(client, server, digest):
    old, new = GOLDEN / "keras_hub/gemma", KERAS
    server.folders["someone/versions"] = {"3": old, "12": new}
    assert client.open(handle("versions", "/3"))["arrays"] == digest(old)
    newest = client.open(handle("versions", ""))
    assert newest["arrays"] == digest(new)
    assert newest["directory"].endswith("/versions/keras/tiny_en/12")


def test_without_a_network_a_version_of_the_cache_is_named(client, offline, server):
    client.open(handle("named", ""))
    refused = offline.open(handle("named", ""))["refused"]
    assert f"name the version in the cache, {handle('named', '/2')};" in refused


@pytest.mark.parametrize(
    ("fault", "hashes"),
    [
        ("cut", True),
        ("cut", False),
        ("short", False),
        ("unsized", False),
        ("page", False),
        ("slow", True),
    ],
)
def test_what_is_not_whole_is_fetched_once_more(client, server, digest, fault, hashes):
    name, server.hashes = f"{fault}{hashes}", hashes
    served(server, name, faults=[fault])
    assert client.open(handle(name))["arrays"] == digest(KERAS)
    assert len(gets(server)) == (1 if fault == "slow" else 2)


def test_content_with_another_hash_is_fetched_once_more(client, server, digest):
    served(server, "flip", faults=["flip"])
    assert client.open(handle("flip"))["arrays"] == digest(KERAS)
    assert len(gets(server)) == 2
    served(server, "flips", faults=["flip"] * 2)
    refused = client.open(handle("flips"))["refused"]
    assert f"{WEIGHTS}: expected a whole file, received content that is not" in refused


@pytest.mark.parametrize(
    ("fault", "received"),
    [
        ("cut", "399,384 bytes of an HDF5 file of 798,768"),
        ("page", "a web page"),
    ],
)
def test_a_lie_that_stays_is_refused_until_it_ends(
    client, offline, server, digest, fault, received
):
    name, server.hashes = f"lie{fault}", False
    served(server, name, faults=[fault, fault])
    refused = client.open(handle(name))["refused"]
    assert f"{WEIGHTS}: expected a whole file, received {received}; run it" in refused
    assert "refused" in offline.open(handle(name))
    assert client.open(handle(name))["arrays"] == digest(KERAS)


@pytest.mark.parametrize("fault", ["cut", "short", "unsized", "page"])
@pytest.mark.parametrize("file", [VOCABULARY, "preprocessor.json"])
def test_a_small_file_that_is_not_whole_is_fetched_once_more(
    client, offline, server, digest, file, fault
):
    name, server.hashes = f"{pathlib.PurePath(file).stem}-{fault}", False
    served(server, name, faults=[fault, fault], file=file)
    refused = client.open(handle(name))["refused"]
    assert f"{file}: expected a whole file, received " in refused
    assert "refused" in offline.open(handle(name))
    answer = client.open(handle(name))
    assert answer["arrays"] == digest(KERAS)
    assert answer["vocabulary"] == (KERAS / VOCABULARY).stat().st_size


@pytest.mark.parametrize(
    ("later", "requests", "hashes"),
    [
        ([None, None], 2, True),  # the rest
        ([None, 403, None], 3, True),  # kagglehub takes an error's text for the rest
        ([None, 403, None], 3, False),
        ([None, "whole", None], 3, False),  # the range is ignored
    ],
)
def test_an_interrupted_download_goes_on_or_starts_anew(
    client, server, digest, later, requests, hashes
):
    name, server.hashes = f"drop{later[1]}{hashes}", hashes
    served(server, name, folder=LARGE, faults=["drop", *later])
    refused = client.open(handle(name))["refused"]
    assert "check the network and run it again: it goes on where it stopped" in refused
    server.requests.clear()
    assert client.open(handle(name))["arrays"] == digest(LARGE)
    assert len(gets(server)) == requests
    assert gets(server)[1].split()[-1] == "bytes=3145728-"


@pytest.mark.parametrize("file", ["config.json", VOCABULARY, "tokenizer.json"])
def test_a_small_file_that_was_dropped_is_not_taken_as_absent(
    client, server, digest, file
):
    name = f"small-{pathlib.PurePath(file).stem}"
    served(server, name, faults=["drop"], file=file)
    assert "check the network" in client.open(handle(name))["refused"]
    answer = client.open(handle(name))
    assert answer["arrays"] == digest(KERAS)
    assert answer["vocabulary"] == (KERAS / VOCABULARY).stat().st_size


def test_a_model_may_lack_all_but_config_and_weights(client, offline, server, digest):
    extras = [VOCABULARY, "tokenizer.json", "preprocessor.json", "metadata.json"]
    served(server, "bare", missing=extras)
    for opener in (client, client, offline):
        answer = opener.open(handle("bare"))
        assert (answer["arrays"], answer["vocabulary"]) == (digest(KERAS), 0)


def test_a_model_without_weights_is_refused(client, server):
    served(server, "weightless", missing=[WEIGHTS])
    refused = client.open(handle("weightless"))["refused"]
    assert f"expected {WEIGHTS} or model.weights.json, received neither" in refused


def test_names_in_an_index_are_fetched_and_none_outside(
    client, server, digest, tmp_path
):
    tensors = load_file(HUGGING_FACE / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, tmp_path / shard)
    weight_map = {n: shard for shard, members in shards.items() for n in members}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    shutil.copyfile(HUGGING_FACE / "config.json", tmp_path / "config.json")
    served(server, "shards", folder=tmp_path)
    answer = client.open("kaggle://someone/shards/transformers/tiny/1")
    assert (answer["form"], answer["arrays"]) == ("hf", digest(HUGGING_FACE))
    weight_map[names[0]] = "../../stolen.safetensors"
    index.write_text(json.dumps({"weight_map": weight_map}))
    served(server, "outside", folder=tmp_path)
    refused = client.open("kaggle://someone/outside/transformers/tiny/1")["refused"]
    assert "received '../../stolen.safetensors'" in refused
    assert not server.asked("stolen")


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (401, "accept the licence at https://www.kaggle.com/models/keras/gemma2, then"),
        (403, "accept the licence at https://www.kaggle.com/models/keras/gemma2, then"),
        (404, "see https://www.kaggle.com/models/keras/gemma2: is the name right?"),
        (429, "wait some minutes and run it again; for a higher limit"),
        (500, "run it again later: it goes on where it stopped"),
    ],
)
def test_a_refusal_says_what_to_do(client, server, status, fix):
    server.status["keras/gemma2"] = status
    refused = client.open("gemma2_9b_en")["refused"]
    del server.status["keras/gemma2"]
    assert f"; {fix}" in refused
    assert refused.startswith(BUILT_IN["gemma2_9b_en"].handle)
    assert status == 500 or refused.endswith(LOG_IN)


def test_no_network_names_the_way_without_one(offline):
    refused = offline.open(handle("never"))["refused"]
    assert refused.startswith(f"{handle('never')}: expected a download, received ")
    assert refused.endswith("or pass a directory that was downloaded before")


def test_a_built_in_name_that_brings_another_model_is_refused(client):
    refused = client.open("gemma2_2b_en")["refused"]
    assert refused.startswith("kaggle://keras/gemma2/keras/gemma2_2b_en/2: expected")
    assert "the dimensions of gemma2_2b_en: GemmaConfig(" in refused


def test_a_model_that_kagglehub_has_whole_is_used(offline, cache, digest):
    folder = cache / "kaggle/models/someone/bundle/keras/tiny_en"
    shutil.copytree(KERAS, folder / "1")
    assert "refused" in offline.open(handle("bundle"))
    (folder / "1.complete").touch()
    assert offline.open(handle("bundle"))["arrays"] == digest(KERAS)


def test_a_notebook_on_kaggle_uses_the_model_that_it_mounts(server, tmp_path, digest):
    client = Client(
        server.url,
        tmp_path,
        KAGGLE_KERNEL_RUN_TYPE="Interactive",
        KAGGLE_DATA_PROXY_URL=server.url,
        KAGGLE_DATA_PROXY_TOKEN="of the notebook",
        KAGGLE_USER_SECRETS_TOKEN="of the notebook",
        KAGGLE_CACHE_MOUNT_FOLDER=str(KERAS.parent),
    )
    with contextlib.closing(client):
        answer = client.open(handle("mounted"))
    assert answer["directory"] == str(KERAS)
    assert answer["arrays"] == digest(KERAS)
