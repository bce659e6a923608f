"""The real Gemma 3 270M, where somebody has built it (`tests/tools/real_gemma3.py`)."""

import os

import pytest

VARIABLE = "GEMMA3_270M_DIR"


@pytest.fixture(scope="session")
def directory():
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"{VARIABLE} is not set; tests/tools/real_gemma3.py makes one")
    return path
