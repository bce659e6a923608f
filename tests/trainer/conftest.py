"""An object store in memory that answers to gs://, for every test below."""

import pytest

from tests.object_store import object_store


@pytest.fixture
def bucket():
    with object_store("gs", "gcs"):
        yield "gs://bucket/run"


@pytest.fixture(params=["disk", "bucket"])
def root(request, tmp_path):
    return tmp_path if request.param == "disk" else request.getfixturevalue("bucket")
