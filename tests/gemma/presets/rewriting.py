"""A golden preset, read and written again by our writer."""

import pathlib

from gemma.presets import open_preset, write_preset

GOLDEN = pathlib.Path(__file__).parents[2] / "golden/keras_hub"


def rewrite(name, directory, **options):
    """Write it to a directory, with other options of the writer; return the first."""
    preset = open_preset(str(GOLDEN / name))
    with preset.weights() as weights:
        write_preset(
            directory,
            config=preset.config,
            arrays=weights.read,
            vocabulary=preset.vocabulary(),
            sequence_length=preset.sequence_length,
            **{"dtype": preset.dtype} | options,
        )
    return preset
