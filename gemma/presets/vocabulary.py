"""The SentencePiece model of a preset, read only if it fits the model.

Turns a file's name and the size of a vocabulary into bytes. It refuses to know text:
`gemma.tokenizers` encodes.
"""

from __future__ import annotations

import contextlib

import sentencepiece
from etils import epath

from gemma.presets.errors import PresetFileError
from gemma.presets.signatures import check_signature
from gemma.presets.source import inside, local_file

MAX_VOCABULARY_BYTES = 64 << 20
"""Gemma's own vocabularies have 4 to 5 megabytes."""

_FETCH = "fetch the file again from where it was published"


def read_vocabulary(
    directory: epath.Path, name: str, vocabulary_size: int
) -> bytes | None:
    """Return the SentencePiece model in `directory`, None where there is none.

    Raises:
        PresetFileError: The file is something else, or has more pieces than the
            model has embeddings.
    """
    if not (directory / name).exists():
        return None
    path = directory / name
    with contextlib.ExitStack() as cleanup:
        file = local_file(inside(directory, name), cleanup)
        check_signature(file, b"", kind="a SentencePiece model")
        if file.stat().st_size > MAX_VOCABULARY_BYTES:
            _refuse(path, f"at most {MAX_VOCABULARY_BYTES} bytes", file.stat().st_size)
        content = file.read_bytes()
    pieces = _count_pieces(path, content)
    if pieces > vocabulary_size:
        raise PresetFileError(
            path,
            expected=f"at most {vocabulary_size} pieces, the model's vocabulary_size",
            received=f"{pieces} pieces",
            fix="use the tokenizer that was published with these weights",
        )
    return content


def _count_pieces(path: epath.Path, content: bytes) -> int:
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise PresetFileError(
            path,
            expected="a SentencePiece model",
            received=f"{len(content)} bytes that are none",
            fix=_FETCH,
        ) from error
    return processor.get_piece_size()


def _refuse(path: epath.Path, expected: str, received: object) -> None:
    raise PresetFileError(path, expected=expected, received=received, fix=_FETCH)
