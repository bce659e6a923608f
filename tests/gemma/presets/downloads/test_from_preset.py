"""Whole models from handles, in one process that knows nothing but the server."""

import json
import subprocess
import sys

import pytest

from tests.gemma.presets.downloads.conftest import ROOT, environment
from tests.gemma.presets.downloads.loopback import HUGGING_FACE, KERAS

TOLERANCE = 1e-4  # float32, another order of sums: tests/golden/README.md
SCRIPT = """
import json, sys
import numpy as np
import gemma

hf, keras = (dict(np.load(path)) for path in sys.argv[1:])

def distance(found, expected, mask):
    return float(np.abs(np.asarray(found) - expected)[mask.astype(bool)].max())

backbone = gemma.GemmaBackbone.from_preset("hf://someone/tiny")
hidden = backbone({"token_ids": hf["input_ids"], "padding_mask": hf["attention_mask"]})
model = gemma.GemmaCausalLM.from_preset("kaggle://someone/tiny/keras/tiny_en")
logits = model({k: keras[k] for k in ("token_ids", "padding_mask")})
try:
    gemma.GemmaBackbone.from_preset("gemma2_2b_en")
except ValueError as error:
    refused = str(error)
print("ANSWER " + json.dumps({
    "hidden": distance(hidden, hf["hidden"][-1], hf["attention_mask"]),
    "logits": distance(logits, keras["logits"], keras["padding_mask"]),
    "tokens": model.preprocessor.tokenizer("A dog barks."),
    "refused": refused,
}))
"""


@pytest.fixture(scope="module")
def answer(server, cache):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SCRIPT,
            HUGGING_FACE / "golden.npz",
            KERAS / "golden.npz",
        ],
        env=environment(server.url, cache),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "ANSWER " in done.stdout, done.stderr
    return json.loads(done.stdout.split("ANSWER ", 1)[1])


def test_a_backbone_from_the_hub_computes_what_transformers_did(answer):
    assert answer["hidden"] < TOLERANCE


def test_a_causal_lm_from_kaggle_computes_what_keras_hub_did(answer):
    assert answer["logits"] < TOLERANCE
    assert answer["tokens"]


def test_a_built_in_backbone_refuses_another_model(answer):
    assert "expected the dimensions of gemma2_2b_en" in answer["refused"]
