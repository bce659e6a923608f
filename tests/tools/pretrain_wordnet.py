"""Turn WordNet 3.1's data files into define and use rows: demo and pretraining.

The rules, in order:

- a synset gives one definition: its gloss up to the first quoted example. Definitions
  of 12 to 200 characters without a quote inside stay; the head word is the synset's
  first, underscores as spaces, without the marker of adjectives such as `(a)`;
- the synsets (nouns, verbs, adjectives, adverbs) are shuffled once with seed 0, and
  only the first one of each word and part of speech stays;
- the gloss's first quotation of at least eight characters gives a second row where it
  holds the head word as it stands;
- the first 4,500 synsets with two rows are the demo's training rows, the next 250 are
  held out, and pretraining has every other row whose id, prompt and response occur in
  neither.

It knows nothing of tokens, and of archives only that members are bytes by name.
"""

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Row = dict[str, str]

DATA_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
PART_OF_SPEECH = {
    "n": "noun",
    "v": "verb",
    "a": "adjective",
    "s": "adjective",  # a satellite of another adjective
    "r": "adverb",
}
DEMO_TRAIN_ROWS = 9000
DEMO_HELDOUT_ROWS = 500
DEFINITION_CHARACTERS = range(12, 201)


def build_rows(data_files: Mapping[str, bytes]) -> dict[str, list[Row]]:
    """Return the rows of the three WordNet files by file name."""
    synsets = [
        synset
        for name in DATA_FILES
        for synset in _synsets(data_files[name].decode("latin-1").splitlines())
    ]
    random.Random(0).shuffle(synsets)
    rows = list(_rows_of_first_senses(synsets))
    paired = [row for both in rows if len(both) == 2 for row in both]
    demo = paired[: DEMO_TRAIN_ROWS + DEMO_HELDOUT_ROWS]
    taken = {key: {row[key] for row in demo} for key in ("id", "prompt", "response")}
    return {
        "wordnet_demo_train.jsonl": demo[:DEMO_TRAIN_ROWS],
        "wordnet_demo_heldout.jsonl": demo[DEMO_TRAIN_ROWS:],
        "wordnet_pretrain.jsonl": [
            row
            for both in rows
            for row in both
            if not any(row[key] in taken[key] for key in taken)
        ],
    }


def to_jsonl(rows: Iterable[Mapping[str, object]]) -> str:
    """Return the rows as JSON lines, non-ASCII characters as they are."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def read_jsonl(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in content.decode().splitlines()]


def as_plain_text(row: Row) -> Row:
    """Return a prompt/response row as the dictionary entry that pretraining sees."""
    return {"text": f"{entry_head(row['prompt'])}\n{row['response']}"}


def entry_head(prompt: str) -> str:
    """Return the head of a dictionary entry for a prompt that asks for it.

    `Define the noun "yak".` becomes `yak (noun)`, `Use the noun "yak" in a sentence.`
    becomes `yak (noun), used`. Questions are left for fine-tuning to teach.
    """
    task, kind, word = re.match(r'(Define|Use) the (\w+) "(.*)"', prompt).groups()
    return f"{word} ({kind})" + (", used" if task == "Use" else "")


def _synsets(lines: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield id, head word, definition and gloss of every synset that can be used."""
    for line in lines:
        if line.startswith("  "):  # the licence at the head of each file
            continue
        fields, gloss = line.split(" | ", 1)
        offset, _, kind, _, word = fields.split(" ")[:5]
        definition = gloss.split('; "')[0].strip()
        if len(definition) in DEFINITION_CHARACTERS and '"' not in definition:
            word = re.sub(r"\(\w+\)$", "", word).replace("_", " ")
            yield f"{kind}{offset}", word, definition, gloss


def _rows_of_first_senses(
    synsets: Iterable[tuple[str, str, str, str]],
) -> Iterator[list[Row]]:
    seen = set()
    for identity, word, definition, gloss in synsets:
        part = PART_OF_SPEECH[identity[0]]
        if (word, part) in seen:
            continue
        seen.add((word, part))
        rows = [
            _row(identity, "define", f'Define the {part} "{word}".', definition + ".")
        ]
        quotation = re.search(r'"([^"]{8,})"', gloss)
        if quotation and word.lower() in quotation[1].lower():
            sentence = quotation[1].rstrip(".") + "."
            prompt = f'Use the {part} "{word}" in a sentence.'
            rows.append(_row(f"{identity}-ex", "example", prompt, sentence))
        yield rows


def _row(identity: str, task: str, prompt: str, response: str) -> Row:
    response = response[0].upper() + response[1:]
    return {"id": identity, "task": task, "prompt": prompt, "response": response}
