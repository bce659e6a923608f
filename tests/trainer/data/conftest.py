"""The vocabulary and files of rows that the tests of data share."""

import json
import pathlib

import pytest

from gemma.tokenizers import GemmaTokenizer
from trainer.config.schema import DataConfig
from trainer.data import open_data

TESTS = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tokenizer():
    return GemmaTokenizer(TESTS / "golden/tiny2k.spm")


@pytest.fixture
def write_rows(tmp_path):
    """Return a function that writes a JSONL file and returns its path."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        lines = [row if isinstance(row, bytes) else json.dumps(row) for row in rows]
        path.write_bytes(b"".join(_bytes(line) + b"\n" for line in lines))
        return str(path)

    return write


@pytest.fixture
def open_rows(write_rows, tokenizer):
    """Return a function that opens rows as data of a run."""

    def open_(rows, *, seed=0, global_batch_size=2, **options):
        path = rows if isinstance(rows, str) else write_rows(rows)
        config = DataConfig(source="jsonl", path=path, **options)
        return open_data(
            config, tokenizer, seed=seed, global_batch_size=global_batch_size
        )

    return open_


def _bytes(line):
    return line if isinstance(line, bytes) else line.encode()
