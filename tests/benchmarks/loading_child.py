"""One way to load a preset, in one process: seconds and memory, as a line of JSON.

Turns a way and a directory into what it took. `loading.py` starts it:

    python tests/benchmarks/loading_child.py mesh DIRECTORY --devices 1
"""

import argparse
import json
import pathlib
import re
import threading
import time
from collections.abc import Callable
from typing import Any

SAMPLE_SECONDS = 0.001


def read(directory: str) -> dict[str, Any]:
    """Read the weights into memory and do nothing with them."""
    import numpy as np

    with Watch() as watch:
        contents = [np.fromfile(path, np.uint8) for path in weight_files(directory)]
    return watch.result(sum(content.nbytes for content in contents))


def mesh(directory: str) -> dict[str, Any]:
    """Load onto a mesh of all devices, as a training run does; imports come before."""
    import jax

    from gemma.abstract import build_abstract
    from gemma.backbones.families import backbone_class
    from gemma.presets import open_preset
    from gemma.stacked.tree import stacked_tree
    from trainer.distribution.mesh import build_mesh
    from trainer.model.placement import place
    from trainer.model.state import load_arrays

    preset = open_preset(directory)
    arguments = preset.config.to_mapping() | {"dtype": preset.dtype}
    build = backbone_class(preset.config)
    tree = stacked_tree(build_abstract(lambda: build(**arguments)))
    devices = build_mesh((1, len(jax.devices())), jax.devices())
    placement = place(devices, preset.config)
    jax.block_until_ready(jax.numpy.zeros(8))
    with Watch() as watch:
        with open_preset(directory).weights() as source:
            arrays = load_arrays(tree, source, placement.sharding)
        jax.block_until_ready(arrays)
    return watch.result(sum(array.nbytes for array in arrays.values()))


def ours(directory: str) -> dict[str, Any]:
    """Import the library and build a backbone from a preset."""
    with Watch() as watch:
        from gemma import Backbone

        backbone = Backbone.from_preset(directory)
    return watch.result(4 * backbone.count_params())


def from_preset(directory: str) -> dict[str, Any]:
    """Build a backbone from a preset; imports come before."""
    import jax

    from gemma import Backbone

    jax.block_until_ready(jax.numpy.zeros(8))
    with Watch() as watch:
        backbone = Backbone.from_preset(directory)
    return watch.result(4 * backbone.count_params())


def keras_hub(directory: str) -> dict[str, Any]:
    """Import KerasHub and build its backbone from the same preset."""
    with Watch() as watch:
        import keras_hub

        backbone = keras_hub.models.Backbone.from_preset(directory)
    return watch.result(4 * backbone.count_params())


WAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    way.__name__: way for way in (read, mesh, from_preset, ours, keras_hub)
}


class Watch:
    """Wall and processor time of a block, and the peak of its anonymous memory."""

    def __enter__(self) -> "Watch":
        self._before = self._peak = anonymous_bytes()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        self._wall, self._processor = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exception: object) -> None:
        self._seconds = time.perf_counter() - self._wall
        self._processor_seconds = time.process_time() - self._processor
        self._done.set()
        self._sampler.join()

    def result(self, array_bytes: int) -> dict[str, Any]:
        """Return what the block took for arrays of so many bytes."""
        return {
            "seconds": self._seconds,
            "processor_seconds": self._processor_seconds,
            "bytes": array_bytes,
            "memory_ratio": (self._peak - self._before) / array_bytes,
        }

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, anonymous_bytes())
        self._peak = max(self._peak, anonymous_bytes())


def anonymous_bytes() -> int:
    """Return the anonymous resident memory of this process (Linux)."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) * 1024


def weight_files(directory: str) -> list[pathlib.Path]:
    """Return the files of weights, whatever their form."""
    folder = pathlib.Path(directory)
    return [*folder.glob("*.safetensors"), *folder.glob("*.weights.h5")]


def main() -> None:
    """Load as the command line says; the last line of the output is the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("directory")
    words = parser.parse_args()
    print(json.dumps(WAYS[words.way](words.directory)), flush=True)


if __name__ == "__main__":
    main()
