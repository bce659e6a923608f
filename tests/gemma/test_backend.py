"""Keras runs on JAX, chosen for whoever chose nothing, and on nothing else."""

import os
import subprocess
import sys

import pytest


def run(code, **environment):
    cleared = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**cleared, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "package",
    ["gemma.layers", "gemma.stacked", "gemma.decoding", "gemma.causal_lm"],
)
def test_jax_is_chosen_where_nothing_was(package):
    code = f"import {package}, keras; print(keras.config.backend())"
    assert run(code).stdout == "jax\n"


def test_another_backend_is_refused_by_name():
    result = run("import gemma.layers", KERAS_BACKEND="torch")
    assert "ImportError: gemma needs Keras on JAX, but the backend is 'torch'" in (
        result.stderr
    )


def test_the_package_itself_imports_neither_keras_nor_jax():
    code = "import gemma, gemma.config, sys; print({'keras', 'jax'} & {*sys.modules})"
    assert run(code).stdout == "set()\n"


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    result = run("import gemma; gemma.LlamaBackbone")
    assert "module 'gemma' has no attribute 'LlamaBackbone'" in result.stderr


def test_every_public_name_loads():
    code = "import gemma\nfor name in dir(gemma): print(getattr(gemma, name).__name__)"
    names = run(code).stdout.split()
    assert {"Backbone", "GemmaBackbone", "GemmaCausalLM", "GemmaTokenizer"} < {*names}
    assert {"Gemma3CausalLM", "Gemma3CausalLMPreprocessor", "Gemma3Tokenizer"} < {
        *names
    }
