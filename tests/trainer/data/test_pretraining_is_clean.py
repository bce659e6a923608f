"""No held-out text may occur in what the embedded preset was pretrained on.

The training text itself is too large to commit. Its hashes stand in
`tests/data/pretrain.hashes`; where `make pretrain-data` has been run, the last tests
prove that the list is that text's.
"""

import hashlib
import json
import pathlib
import sys

import pytest

TESTS = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(TESTS / "tools"))

from pretrain_hashes import hash_rows, hash_text, read_hashes, windows  # noqa: E402
from pretrain_wordnet import entry_head  # noqa: E402

PRETRAIN_DATA = TESTS.parent / "pretrain-data"
HELDOUT_ROWS = TESTS.parent / "trainer/data/wordnet/heldout.jsonl"
HASHES = TESTS / "data/pretrain.hashes"
KNOWN_WORDNET_ROW = {
    "text": "tree swallow (noun)\nOf Australia and Polynesia; nests in tree cavities."
}
# The first play's cast opens a document, and with it a window.
KNOWN_LINES = """KING OF FRANCE.
THE DUKE OF FLORENCE.
BERTRAM, Count of Rousillon.
LAFEU, an old Lord."""


@pytest.fixture(scope="module")
def trained() -> frozenset[bytes]:
    return read_hashes(HASHES.read_bytes())


@pytest.fixture(scope="module")
def rebuilt() -> pathlib.Path:
    path = PRETRAIN_DATA / "train.jsonl"
    if not path.exists():
        pytest.skip("`make pretrain-data` rebuilds the training text")
    return path


def test_no_heldout_wordnet_row_was_trained_on(trained):
    rows = [json.loads(line) for line in HELDOUT_ROWS.read_text().splitlines()]
    assert len(rows) == 500
    for row in rows:
        for text in (entry_head(row["prompt"]), row["response"]):
            assert hash_text(text) not in trained, row["id"]


def test_no_window_of_the_heldout_works_was_trained_on(trained):
    heldout = list(windows((TESTS / "data/shakespeare_heldout.txt").read_text()))
    assert len(heldout) > 8_000
    assert [text for text in heldout if hash_text(text) in trained] == []


def test_a_known_training_row_is_found(trained):
    for text in KNOWN_WORDNET_ROW["text"].split("\n"):
        assert hash_text(text) in trained


def test_a_known_training_passage_is_found(trained):
    assert hash_text(KNOWN_LINES) in trained


def test_seven_copied_lines_are_found_wherever_they_begin():
    lines = [f"line {number}" for number in range(40)]
    trained = read_hashes(hash_rows([{"text": "\n".join(lines)}]))
    for start in range(34):
        copied = "\n".join(["something else", *lines[start : start + 7]])
        assert any(hash_text(text) in trained for text in windows(copied)), start


def test_the_lines_of_a_chat_are_listed():
    chat = [{"role": "user", "content": "a\nb"}, {"role": "model", "content": "c\nd"}]
    assert hash_text("a\nb\nc\nd") in read_hashes(hash_rows([{"messages": chat}]))


def test_the_rebuilt_text_is_the_recorded_one(rebuilt):
    recorded = (TESTS / "data/pretrain.sha256").read_text()
    received = hashlib.sha256(rebuilt.read_bytes()).hexdigest()
    assert f"{received}  train.jsonl\n" in recorded


def test_the_list_is_that_of_the_rebuilt_text(rebuilt):
    with open(rebuilt, encoding="utf-8") as lines:
        assert hash_rows(map(json.loads, lines)) == HASHES.read_bytes()
