"""An object store in memory that answers to gs://, for every test below."""

import fsspec
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry


class Bucket(MemoryFileSystem):
    protocol = ("gs", "gcs")
    store = {}
    pseudo_dirs = [""]

    def __init__(self, finalize_on_close=True, **options):
        super().__init__(**options)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))


@pytest.fixture
def bucket():
    for protocol in Bucket.protocol:
        fsspec.register_implementation(protocol, Bucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    yield "gs://bucket/run"
    for protocol in Bucket.protocol:
        _registry.pop(protocol, None)
    backend.fsspec_backend._get_filesystem.cache_clear()


@pytest.fixture(params=["disk", "bucket"])
def root(request, tmp_path):
    return tmp_path if request.param == "disk" else request.getfixturevalue("bucket")
