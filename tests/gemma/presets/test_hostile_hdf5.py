"""Objects in an HDF5 file that would do more than be read are refused by name."""

import zlib

import h5py
import numpy as np
import pytest

from tests.gemma.presets.refusing import refused

QUERY = "layers/gemma_decoder_block/attention/query_dense/vars/0"


def soft_link(file):
    file[QUERY] = h5py.SoftLink("/layers/rms_normalization/vars/0")


def external_link(file):
    file[QUERY] = h5py.ExternalLink("/etc/hostname", "/")


def hard_link(file):
    file[QUERY] = file["layers/rms_normalization/vars/0"]


def loop(file):
    file["layers/again"] = file["layers"]


def external_data(file):
    file.create_dataset(
        QUERY, (4, 48, 16), "f4", external=[("/etc/hostname", 0, 4 * 48 * 16 * 4)]
    )


def virtual(file):
    layout = h5py.VirtualLayout(shape=(4, 48, 16), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=(4, 48, 16))
    file.create_virtual_dataset(QUERY, layout)


def petabyte(file):
    file.create_dataset(QUERY, (1 << 25, 1 << 25), "u1", chunks=(1, 1 << 20))


def bomb(file):
    data = np.zeros((4, 48, 16 << 12), "f4")
    file.create_dataset(QUERY, data=data, chunks=data.shape, compression="gzip")


def named_type(file):
    file[QUERY] = np.dtype("f4")


def text(file):
    file[QUERY] = "import os"


def no_shape(file):
    file[QUERY] = h5py.Empty("f4")


def integers(file):
    file[QUERY] = np.ones((4, 48, 16), "i4")


def chunk(file):
    file.create_dataset(
        QUERY, (1,), "f4", maxshape=(None,), chunks=(1 << 26,), compression="gzip"
    )
    file[QUERY][:] = 1


def inflating(file):
    """A chunk of a megabyte that asks for 400 while it is read."""
    data = file.create_dataset(
        QUERY, (1 << 18,), "f4", chunks=(1 << 18,), compression="gzip"
    )
    data.id.write_direct_chunk((0,), zlib.compress(b"\0" * (400 << 20), 9))


def no_stream(file):
    data = file.create_dataset(QUERY, (64,), "f4", chunks=(64,), compression="gzip")
    data.id.write_direct_chunk((0,), b"\0" * 256)


def other_filter(file):
    file.create_dataset(QUERY, data=np.ones((4, 48, 16), "f4"), compression="lzf")


def bombs(file):
    """Datasets of which each alone expands little enough."""
    noise = np.random.default_rng(0).random(1 << 12)
    part = np.zeros(1 << 20, "f4")
    part[: len(noise)] = noise
    for number in range(64):
        file.create_dataset(
            f"layers/{number}", data=part, chunks=part.shape, compression="gzip"
        )


def deep(file):
    file.create_group("/".join("x" * 40))


HOSTILE = {
    soft_link: "a SoftLink",
    external_link: "a ExternalLink",
    hard_link: "a second link to the same object",
    loop: "a second link to the same object",
    external_data: "data in another file",
    virtual: "a virtual dataset",
    petabyte: "1125899906842624 bytes declared and 0 stored",
    bomb: "50331648 bytes declared and",
    named_type: "a Datatype",
    text: "expected floating point numbers, received dtype object",
    no_shape: "a dataset without a shape",
    integers: "expected floating point numbers, received dtype int32",
    chunk: "268435456 bytes declared and",
    inflating: "a chunk that does not hold its 1048576 bytes",
    no_stream: "a chunk that does not hold its 256 bytes",
    other_filter: r"filters \(32000,\), which are not shuffle and gzip",
    bombs: r"all datasets: expected .* received \d+ bytes declared in \d+",
    deep: "groups more than 16 deep",
}


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_hostile_hdf5_is_refused_without_reading_it(keras, change):
    with h5py.File(keras / "model.weights.h5", "a") as file:
        if change not in (loop, deep, bombs):
            del file[QUERY]
        change(file)
    refused(keras, HOSTILE[change])
