"""Turn a preset and the two held-out texts into bits a byte, beside those of `xz -9`.

Measured is what the model pays for the text's tokens, in bits, over the UTF-8 bytes
that these tokens spell:

- WordNet: the response of each held-out row after `<bos>`, its prompt as the head of a
  dictionary entry (`yak (noun)`, as in the pretraining text) and a newline. Heads and
  ends of text are neither paid nor counted. A newline is a token of its own, so head
  and response are encoded apart without a difference.
- Shakespeare: the whole file in windows of `sequence_length` inputs, each beginning
  with `<bos>`; a window moves on by half its length and pays only for what the one
  before has not, so that every token but those of the first window is read after at
  least half a window of text.

`xz -9` packs the responses joined by newlines (3.49 bits a byte) and the file as it
stands (2.75); its few bytes of header count. The model knows the prompts, xz does not.

It knows presets through `gemma` alone and computes in float32.

    python tests/tools/bits_per_byte.py [PRESET] [--rows N] [--characters N]
"""

import argparse
import json
import lzma
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pretrain_wordnet import entry_head

from gemma import GemmaBackbone, GemmaTokenizer

REPOSITORY = pathlib.Path(__file__).parents[2]
WORDNET = REPOSITORY / "trainer/data/wordnet/heldout.jsonl"
SHAKESPEARE = REPOSITORY / "tests/data/shakespeare_heldout.txt"
BATCH_SIZE = 16


class Sample(NamedTuple):
    """Ids that begin with BOS, and how many of the last ones are paid for."""

    ids: list[int]
    paid: int


def response_samples(
    rows: Sequence[dict[str, str]], tokenizer: GemmaTokenizer
) -> list[Sample]:
    """Return one sample a row: its response after the head of its entry."""
    return [
        Sample([tokenizer.start_token_id, *prompt, *response], len(response))
        for row in rows
        for head in [f"{entry_head(row['prompt'])}\n"]
        for prompt, response in [tokenizer([head, row["response"]])]
    ]


def window_samples(
    ids: Sequence[int], *, start_token_id: int, sequence_length: int
) -> Iterator[Sample]:
    """Yield windows over a text that pay for each of its tokens once."""
    stride = sequence_length // 2
    paid_until = 0
    for start in range(0, len(ids), stride):
        window = list(ids[start : start + sequence_length])
        end = start + len(window)
        yield Sample([start_token_id, *window], end - paid_until)
        paid_until = end
        if end == len(ids):
            return


def total_bits(backbone: GemmaBackbone, samples: Sequence[Sample]) -> float:
    """Return what the model pays for all samples, in bits."""
    nats = 0.0
    longest_first = sorted(samples, key=lambda sample: -len(sample.ids))
    for start in range(0, len(samples), BATCH_SIZE):
        nats += _batch_nats(backbone, longest_first[start : start + BATCH_SIZE])
    return nats / math.log(2)


def xz_bits_per_byte(content: bytes) -> float:
    """Return what `xz -9` needs for the content."""
    return 8 * len(lzma.compress(content, preset=9)) / len(content)


def main() -> None:
    """Measure a preset on both texts and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", nargs="?", default="gemma2_tiny_en")
    parser.add_argument("--rows", type=int, help="first so many WordNet rows only")
    parser.add_argument("--characters", type=int, help="first so many of Shakespeare")
    parser.add_argument("--sequence-length", type=int, default=256)
    arguments = parser.parse_args()
    backbone = GemmaBackbone.from_preset(arguments.preset, dtype="float32")
    tokenizer = GemmaTokenizer.from_preset(arguments.preset)

    lines = WORDNET.read_text(encoding="utf-8").splitlines()[: arguments.rows]
    rows = [json.loads(line) for line in lines]
    responses = [row["response"] for row in rows]
    bits = total_bits(backbone, response_samples(rows, tokenizer))
    size = sum(len(response.encode()) for response in responses)
    _show("WordNet responses", bits / size, xz="\n".join(responses))

    text = SHAKESPEARE.read_text(encoding="utf-8")[: arguments.characters]
    samples = window_samples(
        tokenizer(text),
        start_token_id=tokenizer.start_token_id,
        sequence_length=arguments.sequence_length,
    )
    bits = total_bits(backbone, list(samples))
    _show("Shakespeare", bits / len(text.encode()), xz=text)


def _batch_nats(backbone: GemmaBackbone, samples: Sequence[Sample]) -> float:
    """Return the loss of one batch, padded to a multiple of 32 to compile seldom."""
    length = max(len(sample.ids) for sample in samples) - 1
    shape = (BATCH_SIZE, math.ceil(length / 32) * 32)
    inputs, labels = np.zeros(shape, "int32"), np.zeros(shape, "int32")
    present, paid = np.zeros(shape, "int32"), np.zeros(shape, bool)
    for row, sample in enumerate(samples):
        end = len(sample.ids) - 1
        inputs[row, :end], labels[row, :end] = sample.ids[:-1], sample.ids[1:]
        present[row, :end] = 1
        paid[row, end - sample.paid : end] = True
    hidden = backbone({"token_ids": inputs, "padding_mask": present})
    logits = np.asarray(backbone.token_embedding(hidden, reverse=True), "float64")
    largest = logits.max(axis=-1, keepdims=True)
    log_sums = largest + np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(logits, labels[..., None], axis=-1)
    return float((log_sums - chosen)[paid].sum())


def _show(name: str, bits_per_byte: float, *, xz: str) -> None:
    print(f"{name}: {bits_per_byte:.3f} bits a byte", end="")
    print(f" (xz -9 {xz_bits_per_byte(xz.encode()):.2f})")


if __name__ == "__main__":
    main()
