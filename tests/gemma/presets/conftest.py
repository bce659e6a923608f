"""Copies of golden presets, one in each form, that a test may damage."""

import pathlib
import shutil

import pytest

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


def _copied(name, target):
    """Copy a preset so that it can be changed, whatever its own permissions."""
    shutil.copytree(GOLDEN / name, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


@pytest.fixture
def keras(tmp_path):
    return _copied("keras_hub/gemma2", tmp_path / "keras")


@pytest.fixture
def hf(tmp_path):
    return _copied("hf/gemma2", tmp_path / "hf")
