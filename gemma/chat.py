"""Gemma's turns, as ids with the mask that says which of them are learned.

Turns a conversation into BOS and, for each turn, `<start_of_turn>`, the role, a line
break, the content, `<end_of_turn>` and a line break. Turn tokens are placed by id and
content is encoded apart from them, so no content can open or close a turn. It refuses
to know rows, files and sequences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from gemma.tokenizers import GemmaTokenizer

Role = Literal["user", "model"]

_ROLES = {"system": "system", "user": "user", "model": "model", "assistant": "model"}


class Turn(NamedTuple):
    """What one side says."""

    role: Role
    content: str


@dataclasses.dataclass(frozen=True)
class MaskedIds:
    """Ids of a row (int32) and, for each, whether it is learned (bool)."""

    ids: np.ndarray
    loss_mask: np.ndarray


def fold_messages(messages: Iterable[Mapping[str, Any]]) -> tuple[Turn, ...]:
    """Return the turns of a list of {role, content}, a system message folded in.

    Gemma has no system role: its text opens the first user turn, a blank line after
    it. `assistant` is another name for `model`. Content is stripped, as in the template
    that Gemma's published chats were trained with.

    Raises:
        ValueError: A role is unknown or out of turn, or a content is no text. The
            message says which, never what the content is.
    """
    turns: list[Turn] = []
    system = ""
    for number, message in enumerate(messages, start=1):
        role, content = _role_and_content(message, number)
        if role == "system":
            if number > 1:
                raise ValueError(f"message {number} is a system message, not the first")
            system = content
            continue
        expected = "model" if len(turns) % 2 else "user"
        if role != expected:
            raise ValueError(f"message {number} has role {role}, expected {expected}")
        if system and not turns:
            content = f"{system}\n\n{content}"
        turns.append(Turn(role, content))
    if not turns:
        raise ValueError("there is no user message")
    return tuple(turns)


class ChatFormat:
    """Gemma's turn format in one vocabulary."""

    def __init__(self, tokenizer: GemmaTokenizer) -> None:
        self.tokenizer = tokenizer
        start, end = tokenizer.start_of_turn_id, tokenizer.end_of_turn_id
        self._bos = _int32([tokenizer.start_token_id])
        self._open = {
            role: _int32([start, *tokenizer(f"{role}\n")]) for role in ("user", "model")
        }
        self._end = _int32([end])
        self._newline = _int32(tokenizer("\n"))

    def prompt(self, turns: str | Sequence[Turn]) -> list[int]:
        """Return the ids after which the model answers.

        Args:
            turns: The user's text, or turns of which the last is the user's.
        """
        if isinstance(turns, str):
            turns = (Turn("user", turns.strip()),)
        if not turns or turns[-1].role != "user":
            raise ValueError("turns must end with the user's, for the model to answer")
        contents = self.tokenizer.encode_content(turn.content for turn in turns)
        parts = [self._bos]
        for turn, content in zip(turns, contents, strict=True):
            parts += [self._open[turn.role], content, self._end, self._newline]
        return np.concatenate([*parts, self._open["model"]]).tolist()

    def conversation(self, turns: Sequence[Turn]) -> MaskedIds:
        """Return a whole conversation to learn from."""
        contents = self.tokenizer.encode_content(turn.content for turn in turns)
        return self.assemble([turn.role for turn in turns], contents)

    def assemble(
        self, roles: Sequence[str], contents: Sequence[np.ndarray]
    ) -> MaskedIds:
        """Join encoded contents up to the end of the model's last turn.

        Content of the model and the `<end_of_turn>` after it are learned. What would
        follow the last of them could not be, and is left out.

        Raises:
            ValueError: The model has no turn, so there is nothing to learn.
        """
        if "model" not in roles:
            raise ValueError("no message has role model, so there is nothing to learn")
        count = len(roles) - (roles[-1] != "model")
        parts, learned = [self._bos], [False]
        for role, content in zip(roles[:count], contents[:count], strict=True):
            if len(parts) > 1:
                parts.append(self._newline)
                learned.append(False)
            parts += [self._open[role], content, self._end]
            learned += [False, role == "model", role == "model"]
        sizes = [len(part) for part in parts]
        return MaskedIds(np.concatenate(parts), np.repeat(learned, sizes))


def _role_and_content(message: object, number: int) -> tuple[str, str]:
    """Return the role in Gemma's word and the stripped content of a message."""
    if not isinstance(message, Mapping):
        raise ValueError(f"message {number} is not an object with role and content")
    role, content = message.get("role"), message.get("content")
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise ValueError(
            f"message {number} has an unknown role, expected one of {', '.join(_ROLES)}"
        )
    if not isinstance(content, str):
        raise ValueError(f"content of message {number} is not text")
    if not content.strip():
        raise ValueError(f"content of message {number} is empty")
    return known, content.strip()


def _int32(ids: list[int]) -> np.ndarray:
    return np.asarray(ids, dtype=np.int32)
