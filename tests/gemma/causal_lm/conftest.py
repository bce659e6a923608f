"""Causal language models of every architecture, with a vocabulary."""

import pathlib

import numpy as np
import pytest

from gemma import CausalLM

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="session")
def directory():
    """Preset of a Gemma 2 that KerasHub wrote."""
    return str(GOLDEN / "keras_hub/gemma2")


@pytest.fixture(scope="session")
def gemma3_directory(build, tmp_path_factory):
    """Preset of a Gemma 3 of our own with the vocabulary of the tests."""
    directory = tmp_path_factory.mktemp("gemma3")
    backbone = build("gemma3", 8, fresh=True, vocabulary_size=2048)
    backbone.vocabulary = (GOLDEN / "tiny2k.spm").read_bytes()
    backbone.save_to_preset(str(directory))
    return str(directory)


@pytest.fixture(scope="module", params=["gemma2", "gemma3"])
def model(request, directory, gemma3_directory):
    """A model that no test changes."""
    chosen = {"gemma2": directory, "gemma3": gemma3_directory}[request.param]
    return CausalLM.from_preset(chosen)


@pytest.fixture(scope="session")
def greedy():
    """Continue by calling the model anew for every token."""

    def follow(model, prompt, max_length):
        tokenizer = model.preprocessor.tokenizer
        ids = [tokenizer.start_token_id, *tokenizer(prompt)]
        answer = []
        while len(ids) < max_length:
            # one shape for all steps; what follows a token cannot change its logits
            token_ids = np.array([ids + [0] * (max_length - len(ids))])
            inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
            ids.append(int(np.asarray(model(inputs))[0, len(ids) - 1].argmax()))
            answer.append(ids[-1])
        return answer

    return follow
