"""What can be chosen from `conf/`: its groups and their options, read off the folders.

Turns the names of files into lists of words. It refuses to read what the files say.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


@cache
def conf_directory() -> Path:
    """Return the folder of configuration files: in a wheel, or beside the package."""
    packaged = _PACKAGE / "conf"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "conf"


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Map the name of every group to its options, both sorted."""
    return {
        folder.name: tuple(
            sorted(file.name[: -len(".yaml")] for file in _files(folder))
        )
        for folder in sorted(conf_directory().iterdir())
        if folder.is_dir() and not folder.name.startswith((".", "_"))
    }


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.name.endswith(".yaml")]
