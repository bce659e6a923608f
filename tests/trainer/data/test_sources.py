"""Files, globs and the embedded rows; what opening tells."""

import pathlib

import pytest

from tests.object_store import object_store
from trainer.config.errors import ConfigError, DataError
from trainer.config.schema import ColumnsConfig, DataConfig
from trainer.data import open_data
from trainer.data.jsonl import open_jsonl
from trainer.data.rows import Conversation, PlainText

TESTS = pathlib.Path(__file__).parents[2]
ROW = {"prompt": "p", "response": "r"}


def test_the_embedded_rows_are_there_with_their_licence(tokenizer):
    data = open_data(DataConfig(), tokenizer, seed=0, global_batch_size=8)
    assert len(data.train.rows) == 9000
    assert data.evaluation.facts.rows == 500
    assert data.train.rows.place(0) == "wordnet/train.jsonl:1"
    licence = TESTS.parent / "trainer/data/wordnet/LICENSE"
    assert "WordNet" in licence.read_text()


def test_lines_end_in_any_way_and_keep_their_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\r\n\n \n\r\n{"text": "b"}\n{"text": "c"}')
    source = open_jsonl(str(path), ColumnsConfig(), key="data.path")
    assert [source.read(index) for index in range(3)] == [PlainText(t) for t in "abc"]
    lines = [source.place(index).rpartition(":")[2] for index in range(len(source))]
    assert lines == ["1", "5", "6"]


def test_a_scan_in_parts_finds_every_line(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.jsonl._SCAN_BYTES", 7)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(b'{"text": "%d"}\n' % n for n in range(40)))
    source = open_jsonl(str(path), ColumnsConfig(), key="data.path")
    assert [source.read(n).text for n in range(len(source))] == [
        str(n) for n in range(40)
    ]


def test_a_glob_reads_all_files_in_order_of_name(write_rows, tmp_path):
    write_rows([{"text": "c"}], name="b.jsonl")
    write_rows([{"text": "a"}, {"text": "b"}], name="a.jsonl")
    (tmp_path / "none.jsonl").touch()
    source = open_jsonl(str(tmp_path / "*.jsonl"), ColumnsConfig(), key="data.path")
    assert [source.read(n).text for n in range(3)] == ["a", "b", "c"]
    assert source.place(2) == f"{tmp_path}/b.jsonl:1"


def test_the_digest_knows_content_and_not_names(write_rows):
    columns = ColumnsConfig()
    paths = [
        write_rows(rows, name=f"{n}.jsonl")
        for n, rows in enumerate([[ROW], [ROW], [ROW, ROW]])
    ]
    first, same, other = (
        open_jsonl(path, columns, key="data.path").digest() for path in paths
    )
    assert first == same != other


@pytest.fixture
def bucket():
    """An object store at s3://, to which etils has the same way as gs://."""
    with object_store("s3") as store:
        yield store


def test_remote_files_are_read(bucket):
    bucket.pipe_file("rows/a.jsonl", b'{"text": "a"}\n{"text": "b"}\n')
    bucket.pipe_file("rows/b.jsonl", b'{"text": "c"}\n')
    source = open_jsonl("s3://rows/*.jsonl", ColumnsConfig(), key="data.path")
    assert [source.read(n).text for n in range(3)] == ["a", "b", "c"]
    assert source.place(2) == "s3://rows/b.jsonl:1"
    assert len(open_jsonl("s3://rows/a.jsonl", ColumnsConfig(), key="data.path")) == 2
    with pytest.raises(DataError, match="matches none"):
        open_jsonl("s3://rows/c.jsonl", ColumnsConfig(), key="data.path")


def test_other_schemes_are_refused():
    with pytest.raises(DataError, match="a local path, or gs://bucket/path"):
        open_jsonl("http://host/a.jsonl", ColumnsConfig(), key="data.path")


def test_rows_of_all_kinds_may_stand_in_one_file(open_rows):
    chat = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "model", "content": "b"},
        ]
    }
    data = open_rows([ROW, chat, {"text": "t"}])
    kinds = [type(row) for row in data.train.rows.read(range(3))]
    assert kinds == [Conversation, Conversation, PlainText]


def test_columns_may_have_other_names(open_rows):
    columns = ColumnsConfig(prompt="question", response="answer")
    data = open_rows([{"question": " q ", "answer": "a\n"}], columns=columns)
    [row] = data.train.rows.read([0])
    assert [tuple(turn) for turn in row.turns] == [("user", "q"), ("model", "a")]


@pytest.mark.parametrize("name", ["django_translate_train", "chitchat"])
def test_real_files_are_read_whole(name, tokenizer):
    path = TESTS / f"data/{name}.jsonl"
    config = DataConfig(source="jsonl", path=str(path), sequence_length=512)
    data = open_data(config, tokenizer, seed=0, global_batch_size=4)
    assert len(data.train.rows) == len(path.read_text().splitlines())
    assert next(data.train.batches()).facts.loss_tokens > 0


def test_a_path_that_matches_nothing_names_the_nearest(write_rows, open_rows):
    path = write_rows([ROW], name="rows.jsonl")
    with pytest.raises(DataError) as refused:
        open_rows(path.replace("rows.jsonl", "row.jsonl"))
    assert refused.value.fix == f"data.path={path}"
    with pytest.raises(DataError, match="relative to the current folder"):
        open_rows("nowhere/at/all.jsonl")


def test_a_directory_is_refused_with_the_glob_to_type(tmp_path, open_rows):
    with pytest.raises(DataError) as refused:
        open_rows(str(tmp_path))
    assert refused.value.fix == f"data.path='{tmp_path}/*.jsonl'"


def test_a_source_without_a_path_is_refused(tokenizer):
    config = DataConfig(source="jsonl")
    with pytest.raises(ConfigError, match=r"data\.path=rows\.jsonl"):
        open_data(config, tokenizer, seed=0, global_batch_size=1)


def test_an_unknown_source_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="wordnet, jsonl or tfds"):
        open_data(DataConfig(source="csv"), tokenizer, seed=0, global_batch_size=1)


def test_long_rows_are_refused_on_opening(open_rows):
    rows = [ROW, {"prompt": "p", "response": "secret " * 99}]
    with pytest.raises(DataError) as refused:
        open_rows(rows, on_long_row="raise", sequence_length=64)
    assert "rows.jsonl:2 with " in " ".join(str(refused.value).split())
    assert "secret" not in str(refused.value)


def test_the_description_says_what_happens_to_rows(open_rows):
    rows = [ROW, {"prompt": "p", "response": "a" * 200}, {"prompt": "p " * 90, **ROW}]
    rows[2]["prompt"] = "b" * 200
    facts = open_rows(rows, sequence_length=64).describe()
    assert facts["train"]["rows"] == 3
    assert facts["evaluation"] is None
    assert facts["first_rows"]["rows"] == 3
    assert facts["first_rows"]["rows_longer_than_a_sequence"] == 2
    assert facts["first_rows"]["rows_with_nothing_to_learn"] == 1


def test_the_fingerprint_changes_with_rows_and_settings_only(write_rows, open_rows):
    path, copy = (write_rows([ROW], name=name) for name in ("a.jsonl", "b.jsonl"))
    original = open_rows(path).fingerprint
    assert open_rows(copy, seed=3, global_batch_size=7).fingerprint == original
    changed = [
        open_rows(write_rows([ROW, ROW], name="c.jsonl")),
        open_rows(path, eval_path=copy),
        open_rows(path, sequence_length=64),
        open_rows(path, pack=False),
        open_rows(path, pack_window_rows=8),
        open_rows(path, shuffle=False),
        open_rows(path, on_long_row="skip"),
    ]
    assert len({data.fingerprint for data in changed} | {original}) == 8
