"""Rows of a data set: what a mapping of column names to values must be.

Turns one record into a conversation or a plain text, or says what is wrong with it. It
refuses to know where the record came from, and never shows what it says.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from gemma.chat import Turn, fold_messages
from trainer.config.schema import ColumnsConfig

MAX_COLUMNS_SHOWN = 8
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,40}")


@dataclasses.dataclass(frozen=True, slots=True)
class Conversation:
    """Turns of user and model; what the model says is learned."""

    turns: tuple[Turn, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class PlainText:
    """Text that is learned whole."""

    text: str


Row = Conversation | PlainText


class BadRowError(ValueError):
    """What is wrong with a row, in words that do not show its content."""


def parse_json_row(line: bytes, columns: ColumnsConfig) -> Row:
    """Return the row in a line of JSONL.

    Raises:
        BadRowError: The line is not UTF-8, not a JSON object or not a row.
    """
    if line.startswith(b"\xef\xbb\xbf"):
        raise BadRowError("begins with a byte order mark; save the file without one")
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRowError(f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise BadRowError(f"is not valid JSON at character {error.pos}") from None
    except (RecursionError, ValueError):
        raise BadRowError("is JSON beyond what can be read") from None
    if not isinstance(values, dict):
        raise BadRowError(f"is a JSON {_json_type(values)}, expected an object")
    return parse_row(values, columns)


def parse_row(values: Mapping[str, Any], columns: ColumnsConfig) -> Row:
    """Return the row that a record holds; its columns say which kind it is.

    Raises:
        BadRowError: No kind of row has these columns, or a value is of a wrong type.
    """
    if columns.messages in values:
        return Conversation(_checked_turns(values[columns.messages], columns.messages))
    if columns.prompt in values or columns.response in values:
        prompt = _checked_text(values, columns.prompt, key="prompt")
        response = _checked_text(values, columns.response, key="response")
        user, model = Turn("user", prompt.strip()), Turn("model", response.strip())
        return Conversation((user, model))
    if columns.text in values:
        return PlainText(_checked_text(values, columns.text, key="text"))
    raise BadRowError(_no_kind(values, columns))


def _checked_turns(messages: object, column: str) -> tuple[Turn, ...]:
    if not isinstance(messages, (list, tuple)):
        raise BadRowError(f"column {column!r} is not a list of messages")
    try:
        turns = fold_messages(messages)
    except ValueError as error:
        raise BadRowError(str(error)) from None
    if len(turns) < 2:
        raise BadRowError("has no message with role model, so nothing to learn")
    for turn in turns:
        _check_unicode(turn.content, column)
    return turns


def _checked_text(values: Mapping[str, Any], column: str, *, key: str) -> str:
    if column not in values:
        near = _advice({key: column}, values)
        raise BadRowError(f"has no column {column!r}{near}")
    text = values[column]
    if not isinstance(text, str):
        raise BadRowError(f"column {column!r} is {_json_type(text)}, expected text")
    if not text.strip():
        raise BadRowError(f"column {column!r} is empty")
    _check_unicode(text, column)
    return text


def _check_unicode(text: str, column: str) -> None:
    """Refuse lone surrogates, which JSON can spell and UTF-8 cannot."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRowError(f"column {column!r} holds half a surrogate pair") from None


def _no_kind(values: Mapping[str, Any], columns: ColumnsConfig) -> str:
    wanted = {name: getattr(columns, name) for name in ("prompt", "response")}
    wanted |= {"messages": columns.messages, "text": columns.text}
    return (
        f"has neither {columns.prompt!r} and {columns.response!r} nor "
        f"{columns.messages!r} nor {columns.text!r}{_advice(wanted, values)}"
    )


def _advice(wanted: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """Name the columns that are there, where their names are names."""
    names = [name for name in values if _PLAIN_NAME.fullmatch(str(name))]
    if not names:
        return ""
    shown = ", ".join(names[:MAX_COLUMNS_SHOWN])
    for key, column in wanted.items():
        near = difflib.get_close_matches(column.lower(), names, n=1, cutoff=0.75)
        if near:
            return f"; its columns are {shown}: try data.columns.{key}={near[0]}"
    return (
        f"; its columns are {shown}: name one with data.columns.{next(iter(wanted))}="
    )


def _json_type(value: object) -> str:
    names = {list: "list", dict: "object", str: "string", bool: "boolean"}
    names |= {int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
