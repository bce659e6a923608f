"""A server on loopback, and processes that open presets with the real clients.

The clients read their settings when they are imported: each environment has a process.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
from etils import epath

from gemma.presets import open_directory
from tests.gemma.presets.downloads.loopback import Loopback

ROOT = pathlib.Path(__file__).parents[4]
WORKER = """
import hashlib, json, sys
import gemma.presets
lazy = not {"kagglehub", "huggingface_hub", "requests", "httpx"} & set(sys.modules)

def facts(handle, weights):
    preset = gemma.presets.open_preset(handle)
    if not weights:
        return {
            "layers": preset.config.num_layers,
            "vocabulary": len(preset.vocabulary() or b""),
        }
    digest = hashlib.sha256()
    with preset.weights() as weights:
        for path in sorted(weights.paths()):
            digest.update(path.encode() + weights.read(path).tobytes())
    preset = preset.downloaded()
    return {
        "form": preset.form,
        "arrays": digest.hexdigest(),
        "directory": str(preset.directory),
        "vocabulary": len(preset.vocabulary() or b""),
    }

for line in sys.stdin:
    try:
        answer = facts(*json.loads(line))
    except gemma.presets.PresetFileError as error:
        answer = {"refused": str(error)}
    print("ANSWER " + json.dumps(answer | {"lazy": lazy}), flush=True)
"""


def environment(url, cache, **settings):
    """Return variables under which both clients reach `url` and nothing else."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "KAGGLE", "HUGGING"))
        and "proxy" not in name.lower()
    }
    return kept | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(cache / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLEHUB_CACHE": str(cache / "kaggle"),
        "KAGGLE_CONFIG_DIR": str(cache),
        "HOME": str(cache),
        "http_proxy": url,
        "https_proxy": url,
        "no_proxy": "127.0.0.1",
        **settings,
    }


class Client:
    """A process that opens one preset after another."""

    def __init__(self, url, cache, **settings):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=environment(url, cache, **settings),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def open(self, handle, *, weights=True):
        self.process.stdin.write(json.dumps([handle, weights]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if "ANSWER " in line:
                return json.loads(line.split("ANSWER ", 1)[1])
        raise AssertionError(f"the client died: {self.process.wait()}")

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server():
    with Loopback() as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def client(server, cache):
    with contextlib.closing(Client(server.url, cache)) as client:
        yield client


@pytest.fixture(scope="module")
def offline(cache):
    """A client for which nothing listens, with the same caches."""
    settings = {"HF_HUB_OFFLINE": "1"}
    with contextlib.closing(Client("http://127.0.0.1:9", cache, **settings)) as client:
        yield client


@pytest.fixture(scope="session")
def digest():
    """Return the digest that the client prints for the arrays of a directory."""

    @functools.cache
    def compute(directory):
        found = hashlib.sha256()
        with open_directory(epath.Path(directory)).weights() as weights:
            for path in sorted(weights.paths()):
                found.update(path.encode() + weights.read(path).tobytes())
        return found.hexdigest()

    return compute


@pytest.fixture(autouse=True)
def truthful(server):
    """Forget the faults and the requests of the test before."""
    server.faults.clear()
    server.requests.clear()
    server.hashes = True
