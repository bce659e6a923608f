"""Every key of the schema with its type, meaning and unit.

Turns the dataclasses of `trainer.config.schema`, whatever file each is written in, into
dotted names and back into flat values. The meaning is the string on the line after a
field, read from the source.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import types
import typing
from functools import cache
from typing import Any

from trainer.config import schema

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[str]: "a list such as [a, b]",
}


@dataclasses.dataclass(frozen=True)
class KeyFacts:
    """One key: what it may hold and what it means."""

    name: str
    type: Any
    optional: bool
    meaning: str

    @property
    def expected(self) -> str:
        """Type and meaning in words."""
        word = _WORDS[self.type] + (" or null" if self.optional else "")
        return f"{word}. {self.meaning}"


@cache
def all_keys() -> dict[str, KeyFacts]:
    """Map every dotted key to its facts, in the order of the schema."""
    return dict(_walk(schema.RunConfig, ""))


@cache
def sections() -> frozenset[str]:
    """Return the dotted names that hold keys rather than a value."""
    keys = all_keys()
    return frozenset(
        name.rsplit(".", depth)[0]
        for name in keys
        for depth in range(1, name.count(".") + 1)
    )


def flatten(config: schema.RunConfig) -> dict[str, Any]:
    """Map every dotted key to its value."""
    return {name: value_of(config, name) for name in all_keys()}


def value_of(config: schema.RunConfig, key: str) -> Any:  # noqa: ANN401
    """Return the value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _walk(owner: type, prefix: str) -> typing.Iterator[tuple[str, KeyFacts]]:
    hints, meanings = typing.get_type_hints(owner), _meanings(owner)
    for field in dataclasses.fields(owner):
        name, hint = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _walk(typing.cast(type, hint), f"{name}.")
            continue
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        optional = isinstance(hint, types.UnionType)
        kind = kinds[0] if optional else hint
        yield name, KeyFacts(name, kind, optional, meanings[field.name])


def _meanings(owner: type) -> dict[str, str]:
    """Map the fields of a dataclass to the strings below them."""
    body = _definition(owner).body
    meanings = {}
    for field, doc in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
            name = typing.cast(ast.Name, field.target).id
            text = typing.cast(ast.Constant, doc.value).value
            meanings[name] = " ".join(str(text).split())
    return meanings


def _definition(owner: type) -> ast.ClassDef:
    return next(
        node
        for node in _source(owner.__module__).body
        if isinstance(node, ast.ClassDef) and node.name == owner.__name__
    )


@cache
def _source(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[module]))
