"""Turn a training file into a compact list of hashes, and ask it for single texts.

A WordNet row gives the hash of its prompt and of its response; other text gives the
hash of every fourth window of four lines and of the last one of each document or chat.
Spaces and punctuation do not count; case does, because "father" and "Father" are two
words to WordNet. Asked for every window of another text, the list finds any seven
lines that were copied from one document. A hash is the first five bytes of SHA-256: a
quarter of a million of them meet ten thousand others by chance in one of 450 such
lists, and for a committed list that is settled.

It knows the two shapes of a training row, text and messages, and nothing of where
they come from.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HASH_BYTES = 5
WINDOW_LINES = 4


def hash_text(text: str) -> bytes:
    """Return the hash of a text's words, whatever stands between them."""
    words = " ".join(re.findall(r"\w+", text))
    return hashlib.sha256(words.encode()).digest()[:HASH_BYTES]


def hash_rows(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the sorted hashes of all training rows, one after the other."""
    return b"".join(sorted({hash_text(text) for row in rows for text in _texts(row)}))


def read_hashes(stored: bytes) -> frozenset[bytes]:
    """Return the set that hash_rows wrote as one string."""
    starts = range(0, len(stored), HASH_BYTES)
    return frozenset(stored[start : start + HASH_BYTES] for start in starts)


def windows(text: str, *, step: int = 1) -> Iterator[str]:
    """Yield windows of four lines that hold words, and always the last one."""
    lines = [line for line in text.split("\n") if re.search(r"\w", line)]
    last = max(len(lines) - WINDOW_LINES, 0)
    for start in sorted({*range(0, last + 1, step), last}):
        yield "\n".join(lines[start : start + WINDOW_LINES])


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    if "messages" in row:
        chat = "\n".join(message["content"] for message in row["messages"])
        yield from windows(chat, step=WINDOW_LINES)
    elif re.match(r".+ \((noun|verb|adjective|adverb)\)(, used)?\n", row["text"]):
        yield from row["text"].split("\n", 1)
    else:
        yield from windows(row["text"], step=WINDOW_LINES)
