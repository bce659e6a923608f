"""Turn the pretraining text into the 4,096-piece vocabulary of gemma2_tiny_en.

The flags are Gemma's: BPE with byte fallback, an identity normaliser without dummy
prefix, split digits, whitespace and newline runs as pieces of their own, and the
special pieces pad, eos, bos, unk, mask and the two turn tokens in ids 0 to 6. The text
is what `tests/tools/pretrain_data.py` leaves in a folder. The result is a function of
that text alone: one thread, no sampling, no path of the machine inside the file.

It knows nothing of models and never reads a held-out row.

    python tests/tools/pretrain_vocabulary.py [--text pretrain-data] [--output FILE]
"""

import argparse
import hashlib
import io
import json
import pathlib
from collections.abc import Iterator

import sentencepiece

VOCABULARY_SIZE = 4096
WORDNET = "wordnet_pretrain.jsonl"
SHAKESPEARE = "shakespeare_train.txt"
DEFAULT_OUTPUT = (
    pathlib.Path(__file__).parents[2]
    / "gemma/presets/gemma2_tiny_en/assets/tokenizer/vocabulary.spm"
)


def wordnet_texts(folder: pathlib.Path) -> Iterator[str]:
    """Yield every WordNet row as the plain text that pretraining sees."""
    with open(folder / WORDNET, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield f"{row['prompt']}\n{row['response']}"


def shakespeare_texts(folder: pathlib.Path) -> Iterator[str]:
    """Yield the whole Shakespeare text, once."""
    with open(folder / SHAKESPEARE, encoding="utf-8", newline="") as file:
        yield file.read()


def train_vocabulary(folder: pathlib.Path) -> bytes:
    """Return the serialised SentencePiece model trained on the folder's text."""
    texts = (*wordnet_texts(folder), *shakespeare_texts(folder))
    # The tokenizer cuts at newline pieces, so lines are what BPE may merge within.
    lines = (line for text in texts for line in text.split("\n") if line)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY_SIZE,
        character_coverage=0.9999,
        num_threads=1,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        unk_piece="<unk>",
        user_defined_symbols=[
            *("<mask>", "<start_of_turn>", "<end_of_turn>"),
            *("\n" * count for count in range(1, 5)),
            *("▁" * count for count in range(2, 9)),
        ],
        minloglevel=2,
    )
    return model.getvalue()


def bytes_per_token(model: bytes, texts: Iterator[str]) -> float:
    """Return how many UTF-8 bytes a token of the texts covers on average."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    total_bytes = total_tokens = 0
    for text in texts:
        total_bytes += len(text.encode())
        total_tokens += len(processor.encode(text))
    return total_bytes / total_tokens


def main() -> None:
    """Train, write, and print the figures of the vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=pathlib.Path, default="pretrain-data")
    parser.add_argument("--output", type=pathlib.Path, default=DEFAULT_OUTPUT)
    arguments = parser.parse_args()
    model = train_vocabulary(arguments.text)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(model)
    print(f"{arguments.output}: {len(model)} bytes")
    print(f"sha256 {hashlib.sha256(model).hexdigest()}")
    for name, texts in (
        (WORDNET, wordnet_texts(arguments.text)),
        (SHAKESPEARE, shakespeare_texts(arguments.text)),
    ):
        print(f"{name}: {bytes_per_token(model, texts):.3f} bytes a token")


if __name__ == "__main__":
    main()
