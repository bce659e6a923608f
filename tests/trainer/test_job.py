"""What happens around the imports of a job."""

import gc
import subprocess
import sys

import pytest

from trainer.job import _quick_imports


def test_the_collector_works_again_after_imports_that_failed():
    assert gc.isenabled()
    with pytest.raises(ImportError), _quick_imports():
        assert not gc.isenabled()
        raise ImportError("a library that is broken")
    assert gc.isenabled()


def test_keras_comes_without_matplotlib_and_the_report_with_it(repository):
    code = """
import sys
from trainer.job import _quick_imports
with _quick_imports():
    import trainer.run
assert "matplotlib" not in sys.modules
import trainer.artifacts.curves, matplotlib.figure
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_was_imported_before_stays(repository):
    code = """
import matplotlib, sys
from trainer.job import _quick_imports
with _quick_imports():
    assert sys.modules["matplotlib"] is matplotlib
assert sys.modules["matplotlib"] is matplotlib
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
