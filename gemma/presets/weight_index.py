"""The files that hold a preset's weights: one, or those that an index names.

Turns the name of the one file and of the index into the names of the files there are,
all of them beside the index. It refuses to know what the files hold.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from etils import epath

from gemma.presets.errors import PresetFileError
from gemma.presets.json_file import read_json
from gemma.presets.source import inside


def indexed_files(
    directory: epath.Path, *, single: str, index: str, fix: str
) -> list[str]:
    """Return the names of the files of weights; a single file wins over an index.

    Args:
        directory: Of the preset.
        single: Name of the file where there is one.
        index: Name of the JSON file with `weight_map` where there are several.
        fix: What to do where there is neither.

    Raises:
        PresetFileError: There is neither, or the index names something else.
    """
    if (directory / single).exists():
        return [single]
    path = directory / index
    if not path.exists():
        raise PresetFileError(
            directory, expected=f"{single} or {index}", received="neither", fix=fix
        )
    suffix = single.removeprefix("model")
    names: set[str] = set()
    for name in _names(read_json(inside(directory, index)).get("weight_map")):
        if (
            not isinstance(name, str)
            or pathlib.PurePath(name).name != name
            or not name.endswith(suffix)
        ):
            raise PresetFileError(
                f"{path}, weight_map",
                expected=f"names of {suffix} files in the same directory",
                received=repr(name)[:200],
                fix="use a file from a source that you trust",
            )
        names.add(name)
    return sorted(names)


def _names(weight_map: object) -> Iterator[object]:
    """Yield what stands for a file; Keras lists several for a group that is split."""
    for value in weight_map.values() if isinstance(weight_map, dict) else [None]:
        yield from value if isinstance(value, list) else [value]
