"""Handles that no client gets to see."""

import subprocess
import sys

import pytest

from gemma.presets import PresetFileError, open_preset
from tests.gemma.presets.downloads.conftest import ROOT

CLIENTS = "{'kagglehub', 'huggingface_hub', 'requests', 'httpx'}"


@pytest.mark.parametrize(
    ("handle", "form"),
    [
        ("kaggle://keras/gemma2", "kaggle://owner/model/keras/variation"),
        ("kaggle://a/b/keras/c/../d", "kaggle://owner/model/keras/variation"),
        ("kaggle://a/b/keras/c/newest", "kaggle://owner/model/keras/variation"),
        ("hf://gemma", "hf://owner/model"),
        ("hf://a/../b", "hf://owner/model"),
        ("hf://a/b@../c", "hf://owner/model"),
    ],
)
def test_a_misspelt_handle_is_refused_before_any_client(handle, form):
    with pytest.raises(PresetFileError, match=f"expected {form}, received {handle}"):
        open_preset(handle)


def test_the_clients_are_imported_by_the_first_download_only():
    script = f"import gemma.presets, sys; print({CLIENTS} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "set()"
