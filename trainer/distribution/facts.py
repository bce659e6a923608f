"""What has to be the same in all processes of a run, as plain values.

Turns the configuration, our code and the installed packages into facts that another
process can compare with its own, key by key, before anything is compiled.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import pathlib
import platform
from typing import Any

from trainer.config.keys import flatten
from trainer.config.schema import RunConfig

_PACKAGES = ("jax", "jaxlib", "keras", "numpy", "orbax-checkpoint", "grain")
_OWN = "distributed."  # each process has its own of these
_DIGITS = 16


def shared_facts(config: RunConfig) -> dict[str, Any]:
    """Return every key and its value, the code's hash and the packages' versions."""
    keys = {
        key: value for key, value in flatten(config).items() if not key.startswith(_OWN)
    }
    packages = {
        f"package {name}": importlib.metadata.version(name) for name in _PACKAGES
    }
    return {
        **keys,
        "code of trainer and gemma, sha256": code_hash(),
        "python": platform.python_version(),
        **packages,
    }


def code_hash() -> str:
    """Return the first digits of a SHA-256 over our source files."""
    root = pathlib.Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in ("gemma", "trainer"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:_DIGITS]
