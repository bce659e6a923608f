"""Keras runs on JAX, whichever module of the trainer is the first to import it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USERS_OF_KERAS = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "trainer").rglob("*.py"))
    if re.search(r"(?m)^(import|from) keras\b", file.read_text())
]


@pytest.mark.parametrize("module", USERS_OF_KERAS)
def test_a_module_that_comes_first_gets_jax(repository, tmp_path, module):
    code = f"import {module}, keras; print(keras.config.backend())"
    kept = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env={**kept, "KERAS_HOME": str(tmp_path)},  # without a keras.json
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "jax", done.stderr
