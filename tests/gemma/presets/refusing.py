"""The proof that a preset is refused by name, and without filling the memory."""

import pathlib

import pytest

from gemma.presets import PresetFileError, open_preset

MAX_GROWTH_KIB = 200 * 1024


def refused(directory, match):
    before = _peak_kib(reset=True)
    with pytest.raises(PresetFileError, match=match):
        preset = open_preset(str(directory))
        preset.vocabulary()
        preset.weights()
    assert _peak_kib() < before + MAX_GROWTH_KIB


def _peak_kib(*, reset=False):
    """Return the most memory that this process had, ever or since the last reset."""
    if reset:  # other tests in this process may have had more
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
