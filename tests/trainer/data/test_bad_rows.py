"""Rows that are none: named by file and line, never shown."""

import json

import pytest

from trainer.config.errors import DataError
from trainer.config.schema import ColumnsConfig
from trainer.data.rows import BadRowError, parse_json_row

GOOD = {"prompt": "p", "response": "r"}
SECRET = "cloak"

BAD_ROWS = {
    "invalid JSON": (b'{"prompt": "cloak"', "is not valid JSON at character 18"),
    "no JSON": (b"cloak", "is not valid JSON at character 0"),
    "array": (b'["cloak"]', "is a JSON list, expected an object"),
    "number": (b"12", "is a JSON number, expected an object"),
    "string": (b'"cloak"', "is a JSON string, expected an object"),
    "null": (b"null", "is a JSON null, expected an object"),
    "byte order mark": (
        b'\xef\xbb\xbf{"text": "cloak"}',
        "begins with a byte order mark; save the file without one",
    ),
    "latin-1": ('{"text": "cloak café"}'.encode("latin-1"), "is not UTF-8 at byte 19"),
    "UTF-16": ('{"text": "cloak"}'.encode("utf-16"), "is not UTF-8 at byte 0"),
    "depth": (b"[" * 200_000, "is JSON beyond what can be read"),
    "huge number": (b'{"text": ' + b"1" * 5000 + b"}", "is JSON beyond what can be"),
    "lone surrogate": (
        b'{"text": "cloak \\ud800"}',
        "column 'text' holds half a surrogate pair",
    ),
    "surrogate in messages": (
        b'{"messages": [{"role": "user", "content": "\\udfff"},'
        b' {"role": "model", "content": "cloak"}]}',
        "column 'messages' holds half a surrogate pair",
    ),
    "missing response": (b'{"prompt": "cloak"}', "has no column 'response'"),
    "missing prompt": (b'{"response": "cloak"}', "has no column 'prompt'"),
    "near column": (
        b'{"promt": "cloak", "response": "cloak"}',
        "has no column 'prompt'; its columns are promt, response: try "
        "data.columns.prompt=promt",
    ),
    "other columns": (
        b'{"question": "cloak", "answer": "cloak"}',
        "has neither 'prompt' and 'response' nor 'messages' nor 'text'; its columns "
        "are question, answer: name one with data.columns.prompt=",
    ),
    "content as a column name": (b'{"the cloak!": 1}', "nor 'messages' nor 'text'"),
    "wrong type": (
        b'{"prompt": "cloak", "response": 3}',
        "column 'response' is number, expected text",
    ),
    "null text": (b'{"text": null}', "column 'text' is null, expected text"),
    "empty text": (b'{"text": " \\n"}', "column 'text' is empty"),
    "empty response": (
        b'{"prompt": "cloak", "response": ""}',
        "column 'response' is empty",
    ),
    "messages no list": (
        b'{"messages": "cloak"}',
        "column 'messages' is not a list of messages",
    ),
    "no answer": (
        b'{"messages": [{"role": "user", "content": "cloak"}]}',
        "has no message with role model, so nothing to learn",
    ),
    "unknown role": (
        b'{"messages": [{"role": "cloak", "content": "cloak"}]}',
        "message 1 has an unknown role",
    ),
    "order of roles": (
        b'{"messages": [{"role": "user", "content": "cloak"},'
        b' {"role": "user", "content": "cloak"}]}',
        "message 2 has role user, expected model",
    ),
    "empty message": (
        b'{"messages": [{"role": "user", "content": ""}]}',
        "content of message 1 is empty",
    ),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_the_reason_is_told_without_the_content(kind):
    line, reason = BAD_ROWS[kind]
    with pytest.raises(BadRowError) as refused:
        parse_json_row(line, ColumnsConfig())
    assert reason in str(refused.value)
    assert SECRET not in str(refused.value)


def test_all_bad_rows_of_a_file_are_named_by_line(open_rows, write_rows):
    kinds = list(BAD_ROWS)[:9]
    lines = [line for kind in kinds for line in (GOOD, BAD_ROWS[kind][0])]
    path = write_rows(lines)
    with pytest.raises(DataError) as refused:
        open_rows(path)
    message = str(refused.value)
    assert refused.value.exit_code == 3
    assert "9 bad of 18 rows" in message
    for number, kind in enumerate(kinds):
        bad = f"{path}:{2 * number + 2} {BAD_ROWS[kind][1]}"
        assert bad in refused.value.received
    assert "data.on_bad_row=skip" in message
    assert SECRET not in message


def test_skipped_rows_are_listed_and_left_out(open_rows):
    lines = [GOOD, *(line for line, _ in BAD_ROWS.values()), GOOD]
    data = open_rows(lines, on_bad_row="skip", sequence_length=64)
    facts = data.describe()["train"]
    assert (facts["rows"], facts["bad_rows"]) == (2, len(BAD_ROWS))
    listed = facts["bad_rows_listed"].splitlines()
    assert len(listed) == 21
    assert listed[0].endswith("rows.jsonl:2 is not valid JSON at character 18")
    assert listed[-1] == f"and {len(BAD_ROWS) - 20} more"
    assert SECRET not in facts["bad_rows_listed"]


def test_the_first_twenty_are_listed(open_rows):
    with pytest.raises(DataError) as refused:
        open_rows([GOOD, *[b"x"] * 25])
    listed = refused.value.received
    assert "rows.jsonl:21 is not" in listed
    assert "rows.jsonl:22" not in listed
    assert listed.endswith("and 5 more")


def test_a_file_of_bad_rows_only_is_refused_even_when_skipping(open_rows):
    with pytest.raises(DataError, match="2 rows, none of them good"):
        open_rows([b"x", b"y"], on_bad_row="skip")


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\n"])
def test_a_file_without_rows_is_refused(open_rows, tmp_path, content):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="received  no rows"):
        open_rows(str(path))


def test_bad_held_out_rows_name_their_key(open_rows, write_rows):
    held_out = write_rows([GOOD, b"[]"], name="held_out.jsonl")
    with pytest.raises(DataError) as refused:
        open_rows([GOOD], eval_path=held_out)
    assert refused.value.key == "data.eval_path"
    assert "held_out.jsonl:2 is a JSON list" in refused.value.received


def test_control_characters_and_any_script_are_good_rows(open_rows):
    rows = ["nul:\0 bell:\a", "吾輩は猫である", "𓀀 🧿", "मस्ते"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in rows]
    assert len(open_rows([line.encode() for line in lines]).train.rows) == 4
