"""What 8 and 4 bits cost: logits and perplexity, beside one scale for each channel.

Turns presets and held-out texts into a table: the distance of the logits from the float
model's and the perplexity, for our blocks and for rounding to nearest with one absmax
scale per output channel. Every scheme runs as the floats that its integers stand for,
on the same functions in float32; tests hold the integers to these floats.

- gemma2_tiny_en: WordNet's held-out rows as chats; the responses count.
- Gemma 3 270M (GEMMA3_270M_DIR): the same rows as lines of text, and plain English.

    GEMMA3_270M_DIR=DIRECTORY python tests/benchmarks/quantized.py [--out DIRECTORY]
"""

import argparse
import json
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gemma import Backbone, GemmaTokenizer
from gemma.chat import ChatFormat
from gemma.layers.token_embedding import unembed
from gemma.presets import open_preset
from gemma.quantized.array import QuantizedArray
from gemma.quantized.grid import quantize
from gemma.quantized.names import BLOCK_AXES
from gemma.stacked import Stacked

REPOSITORY = pathlib.Path(__file__).parents[2]
RESULTS = pathlib.Path(__file__).parent / "results"
WORDNET = REPOSITORY / "trainer/data/wordnet/heldout.jsonl"
PLAIN_ENGLISH = REPOSITORY / "tests/data/plain_english.txt"
LINES = 40  # WordNet's rows that make one text

Scheme = Callable[[str, np.ndarray], np.ndarray]


class Text(NamedTuple):
    """Ids with BOS, and the place from which they are paid for."""

    ids: list[int]
    start: int = 1


class Cost(NamedTuple):
    """What a scheme does to the model on some texts."""

    perplexity: float
    logits_rms: float
    """Root mean square distance of the logits, over the float logits' deviation."""
    logits_max: float
    """Largest distance of a logit."""
    divergence: float
    """Mean KL divergence from the float model, in nats a token."""


def blocks(quantization: str) -> Scheme:
    """Return our scheme: what the integers of a weight stand for."""

    def restore(path: str, weight: np.ndarray) -> np.ndarray:
        axis = BLOCK_AXES[path.rsplit("/", 1)[1]]
        parts = map(jnp.asarray, quantize(weight, quantization, axis))
        return np.asarray(QuantizedArray(*parts, quantization, axis).astype("float32"))

    return restore


def channels(quantization: str) -> Scheme:
    """Return the plain scheme: round to nearest, one absmax scale for each output.

    An output is a column of a kernel, a head's column included, and an entry of the
    vocabulary.
    """
    largest = {"int8": 127, "int4": 7}[quantization]

    def restore(path: str, weight: np.ndarray) -> np.ndarray:
        summed: tuple[int, ...] = (BLOCK_AXES[path.rsplit("/", 1)[1]],)
        if path.endswith("attention_output/kernel"):
            summed = (0, 1)  # heads and their dims
        scale = np.abs(weight).max(summed, keepdims=True) / largest
        steps = np.divide(weight, scale, out=np.zeros_like(weight), where=scale > 0)
        return np.rint(steps) * scale

    return restore


SCHEMES: dict[str, Scheme | None] = {
    "float": None,
    "int8, blocks of 32": blocks("int8"),
    "int8, one scale a channel": channels("int8"),
    "int4, blocks of 32": blocks("int4"),
    "int4, one scale a channel": channels("int4"),
}


class Subject:
    """A preset in float32, which runs under any scheme."""

    def __init__(self, preset: str) -> None:
        self._preset = open_preset(preset)
        self._stacked = Stacked(Backbone.from_preset(preset, False, dtype="float32"))
        self.tokenizer = GemmaTokenizer(self._preset.vocabulary())
        self._hidden = jax.jit(self._stacked.hidden)
        self._compare = jax.jit(self._comparison)

    def weights(self, scheme: Scheme | None) -> dict[str, jax.Array]:
        """Return the state tree's arrays with every quantized weight restored."""
        with self._preset.weights() as source:

            def read(path: str) -> np.ndarray:
                value = source.read(path).astype("float32")
                is_whole = scheme is None or path.rsplit("/", 1)[1] not in BLOCK_AXES
                return value if is_whole else scheme(path, value)

            return {
                path: jnp.stack([read(m.path) for m in variable.members])
                if variable.is_stacked
                else jnp.asarray(read(variable.members[0].path))
                for path, variable in self._stacked.tree.items()
            }

    def costs(
        self, texts: Sequence[Text], schemes: dict[str, Scheme | None]
    ) -> dict[str, Cost]:
        """Return what each scheme costs on all texts together."""
        floats = self.weights(None)
        return {
            name: self._cost(texts, floats, self.weights(scheme))
            for name, scheme in schemes.items()
        }

    def _cost(self, texts: Sequence[Text], floats: dict, weights: dict) -> Cost:
        length = max(len(text.ids) for text in texts)
        sums, largest = np.zeros(5), 0.0
        for text in texts:
            ids = np.zeros((1, length), "int32")
            ids[0, : len(text.ids)] = text.ids
            places = np.arange(length - 1)
            mask = (places >= text.start - 1) & (places < len(text.ids) - 1)
            found, top = self._compare(floats, weights, ids, mask)
            sums, largest = sums + np.asarray(found), max(largest, float(top))
        loss, divergence, error, spread, count = sums
        return Cost(
            perplexity=math.exp(loss / count),
            logits_rms=math.sqrt(error / spread),
            logits_max=largest,
            divergence=divergence / count,
        )

    def _comparison(
        self, floats: dict, weights: dict, ids: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return sums over the places of the mask, and the largest distance."""
        want, got = (
            unembed(
                self._hidden(w, ids)[0, :-1],
                self._stacked.table(w),
                soft_cap=self._stacked.config.final_logit_soft_cap,
            )
            for w in (floats, weights)
        )
        sure, paid = jax.nn.log_softmax(want), jax.nn.log_softmax(got)
        loss = -jnp.take_along_axis(paid, ids[0, 1:, None], axis=-1)[:, 0]
        divergence = (jnp.exp(sure) * (sure - paid)).sum(-1)
        error = jnp.square(got - want).mean(-1)
        sums = [
            jnp.where(mask, each, 0.0).sum()
            for each in (loss, divergence, error, want.var(-1), jnp.ones(mask.shape))
        ]
        return jnp.stack(sums), jnp.where(mask[:, None], jnp.abs(got - want), 0.0).max()


def chats(tokenizer: GemmaTokenizer, rows: int) -> list[Text]:
    """Return WordNet's first held-out rows as prompts and paid responses."""
    chat = ChatFormat(tokenizer)
    found = []
    for row in _wordnet(rows):
        prompt = chat.prompt(row["prompt"])
        found.append(Text([*prompt, *tokenizer(row["response"])], len(prompt)))
    return found


def lines(tokenizer: GemmaTokenizer, rows: int) -> list[Text]:
    """Return WordNet's first held-out rows as texts of `LINES` lines."""
    written = [f"{row['prompt']} {row['response']}" for row in _wordnet(rows)]
    return [
        plain("\n".join(written[start : start + LINES]), tokenizer)
        for start in range(0, len(written), LINES)
    ]


def plain(text: str, tokenizer: GemmaTokenizer) -> Text:
    """Return a text whose every token is paid for."""
    return Text([tokenizer.start_token_id, *tokenizer(text)])


def _wordnet(rows: int) -> list[dict[str, str]]:
    with WORDNET.open() as file:
        return [json.loads(line) for line, _ in zip(file, range(rows), strict=False)]


def table(costs: dict[str, Cost]) -> str:
    """Return costs as Markdown."""
    head = [
        "| weights | perplexity | loss of perplexity | KL, nats a token | logits, rms "
        "| largest |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    base = costs["float"].perplexity
    return "\n".join(
        head
        + [
            f"| {name} | {c.perplexity:.4f} | {c.perplexity - base:+.4f} | "
            f"{c.divergence:.5f} | {100 * c.logits_rms:.2f} % | {c.logits_max:.2f} |"
            for name, c in costs.items()
        ]
    )


def main() -> None:
    """Measure and write `quantized.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    tiny = Subject("gemma2_tiny_en")
    measured = {
        "gemma2_tiny_en, 500 held-out rows of WordNet": tiny.costs(
            chats(tiny.tokenizer, 500), SCHEMES
        )
    }
    if directory := os.environ.get("GEMMA3_270M_DIR"):
        real = Subject(directory)
        english = [plain(PLAIN_ENGLISH.read_text(), real.tokenizer)]
        for name, texts in (
            ("Gemma 3 270M, plain English", english),
            ("Gemma 3 270M, 120 held-out rows of WordNet", lines(real.tokenizer, 120)),
        ):
            measured[name] = real.costs(texts, SCHEMES)
    sections = [f"## {name}\n\n{table(costs)}\n" for name, costs in measured.items()]
    text = "\n".join([_INTRODUCTION, *sections])
    (args.out / "quantized.md").write_text(text)
    print(text)


_INTRODUCTION = """# Weights in 8 and 4 bits

Every kernel and the embedding; norms stay as they are. Blocks of 32 along the summed
dim share a bfloat16 scale: 8.5 and 4.5 bits a weight. One absmax scale a channel,
rounded to nearest, is what they are compared with. Measured in float32 by
`tests/benchmarks/quantized.py`; distances of logits are relative to the float logits'
standard deviation (rms) or absolute (largest).
"""


if __name__ == "__main__":
    main()
