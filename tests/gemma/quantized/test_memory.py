"""Loading in fewer bits: the float model never stands in memory."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from gemma.config import GemmaConfig
from gemma.presets import write_preset

if not pathlib.Path("/proc/self/status").exists():
    pytest.skip("memory is read from /proc", allow_module_level=True)

CONFIG = GemmaConfig(
    vocabulary_size=65536,
    num_layers=4,
    num_query_heads=4,
    num_key_value_heads=1,
    hidden_dim=640,
    intermediate_dim=8192,
    head_dim=256,
)
BITS = {"int8": 8.5, "int4": 4.5}

CHILD = """
import json, sys, threading, time
from gemma import Backbone
import jax

def anonymous():
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024

jax.numpy.ones(8).block_until_ready()
base, peak, done = anonymous(), [0], threading.Event()

def watch():
    while not done.is_set():
        peak.append(anonymous())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
model = Backbone.from_preset(sys.argv[1], quantize=sys.argv[2], dtype="float32")
done.set()
thread.join()
arrays = sum(variable.value.nbytes for variable in model.weights)
print(json.dumps({"peak": max(peak) - base, "arrays": arrays}))
"""


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A preset of 75 million float32 weights, 300 MB."""
    directory = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    shapes = CONFIG.parameter_shapes()
    write_preset(
        directory,
        config=CONFIG,
        dtype="float32",
        arrays=lambda path: rng.standard_normal(shapes[path], "float32"),
        vocabulary=None,
    )
    return directory


@pytest.mark.parametrize("quantization", BITS)
def test_a_preset_is_quantized_while_it_is_read(preset, quantization, repository):
    child = [sys.executable, "-c", CHILD, str(preset), quantization]
    output = subprocess.run(
        child, capture_output=True, text=True, check=True, cwd=repository
    ).stdout
    found = json.loads(output.splitlines()[-1])
    floats = CONFIG.parameter_count * 4
    assert found["arrays"] == pytest.approx(floats * BITS[quantization] / 32, rel=0.01)
    # beyond its arrays: the embedding's integers once more, and 16 MB of floats at work
    embedding = CONFIG.vocabulary_size * CONFIG.hidden_dim
    assert found["peak"] < found["arrays"] + embedding + 60e6
    assert found["peak"] < 0.65 * floats
