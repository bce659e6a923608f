"""An object store in memory, which etils reaches the way it reaches gs://."""

import contextlib

import fsspec
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry


@contextlib.contextmanager
def object_store(*schemes):
    """Put one empty store behind the schemes; yield its file system."""

    class Store(MemoryFileSystem):
        protocol, store, pseudo_dirs = schemes, {}, [""]

        def __init__(self, finalize_on_close=True, **options):
            super().__init__(**options)

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(str(path).removeprefix(f"{schemes[0]}://"))

        def mkdir(self, path, create_parents=True, **kwargs):
            """Do nothing: a store has no empty folders."""

        def makedirs(self, path, exist_ok=False):
            """Do nothing: a store has no empty folders."""

    for scheme in schemes:
        fsspec.register_implementation(scheme, Store, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield Store()
    for scheme in schemes:
        _registry.pop(scheme, None)
    backend.fsspec_backend._get_filesystem.cache_clear()
