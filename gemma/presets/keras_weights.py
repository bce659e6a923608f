"""The HDF5 files of a preset directory in KerasHub's form, read as arrays.

Turns `model.weights.h5`, or the shards that `model.weights.json` maps, into a source
of arrays under our variable paths. It refuses files that do not hold exactly the model
of their config, and knows no JSON but that map.
"""

from __future__ import annotations

import contextlib

from etils import epath

from gemma.config import GemmaConfig
from gemma.presets import hdf5, keras_layout
from gemma.presets.errors import PresetFileError
from gemma.presets.file_weights import FileWeights, Stored
from gemma.presets.source import OTHER_CONFIG, check_whole, inside, local_file
from gemma.presets.weight_index import indexed_files

WEIGHTS_FILE = "model.weights.h5"
SHARDED_WEIGHTS_FILE = "model.weights.json"


def open_keras_weights(directory: epath.Path, config: GemmaConfig) -> FileWeights:
    """Open the files and prove that they hold the whole model and nothing else.

    Raises:
        PresetFileError: They do not, or one of them is no plain HDF5 file.
    """
    shapes = config.parameter_shapes()
    names = {name: path for path, name in keras_layout.dataset_names(config).items()}
    with contextlib.ExitStack() as cleanup:
        found = _open(directory, cleanup)
        stored = {names.get(name, name): data for name, data in found.items()}
        found_shapes = {path: data.shape for path, data in stored.items()}
        check_whole(directory, found_shapes, shapes, fix=OTHER_CONFIG)
        return FileWeights(shapes, stored, cleanup.pop_all())


def _open(directory: epath.Path, cleanup: contextlib.ExitStack) -> dict[str, Stored]:
    """Map dataset names to datasets; a single file wins over shards."""
    found: dict[str, Stored] = {}
    for name in weight_files(directory):
        path = local_file(inside(directory, name), cleanup)
        file = cleanup.enter_context(hdf5.open_hdf5(path))
        for full, data in hdf5.stored_arrays(file, ignored=_is_random_state).items():
            # Keras 2 named the list of layers so.
            full = full.replace("_layer_checkpoint_dependencies/", "layers/", 1)
            if full in found:
                raise PresetFileError(
                    directory,
                    expected="every variable once",
                    received=f"{full} in several files",
                    fix="fetch the directory again from where it was published",
                )
            found[full] = data
    return found


def _is_random_state(name: str) -> bool:
    return "seed_generator" in name


def weight_files(directory: epath.Path) -> list[str]:
    """Return the names of the HDF5 files that hold the weights.

    Raises:
        PresetFileError: There are none, or the map names something else.
    """
    return indexed_files(
        directory,
        single=WEIGHTS_FILE,
        index=SHARDED_WEIGHTS_FILE,
        fix="fetch the directory again, or build the model with random weights",
    )
