"""Presets on the Hugging Face Hub, through huggingface_hub and its cache.

Turns `owner/model` and a revision into a snapshot of which every file was looked at.
It refuses to know tensors, to fetch pickled files, and to ask for credentials.
"""

from __future__ import annotations

import hashlib
import os
import pathlib

from gemma.presets.errors import PresetFileError
from gemma.presets.wholeness import REFETCH, damage

# Only what the readers open: never a pickled .bin.
_TEXT_FILES = ["*.json", "*.spm", "tokenizer.model"]
_WEIGHTS_FILES = ["*.safetensors", "*.h5"]
_SHA256_DIGITS = 64
_GIT_SHA1_DIGITS = 40
_BLOCK_BYTES = 1 << 22


def fetch_hugging_face(
    name: str, revision: str | None, *, weights: bool
) -> pathlib.Path:
    """Return the directory of a snapshot, with or without its weights.

    Every file is checked for being whole, those of this call for their hash too.

    Raises:
        PresetFileError: A file is damaged, and its second download too.
        Exception: Whatever huggingface_hub raises.
    """
    import huggingface_hub  # slow to import, and only needed here
    from huggingface_hub import constants

    patterns = _TEXT_FILES + (_WEIGHTS_FILES if weights else [])
    cache = pathlib.Path(constants.HF_HUB_CACHE)
    blobs = cache / f"models--{name.replace('/', '--')}" / "blobs"
    before = set(os.listdir(blobs)) if blobs.is_dir() else set()
    directory = pathlib.Path(
        huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=patterns
        )
    )
    for path in sorted(p for p in directory.rglob("*") if not p.is_dir()):
        flaw = _damage(path, fresh=_blob_name(path) not in before)
        if flaw and not constants.HF_HUB_OFFLINE:
            if not path.is_symlink():  # the client (2.4) replaces no copy of a blob
                path.unlink()
            huggingface_hub.hf_hub_download(
                name,
                path.relative_to(directory).as_posix(),
                revision=directory.name,
                force_download=True,
            )
            flaw = _damage(path, fresh=True)
        if flaw:
            raise PresetFileError(
                path, expected="a whole file", received=flaw, fix=REFETCH
            )
    return directory


def _damage(path: pathlib.Path, *, fresh: bool) -> str | None:
    flaw = damage(path)
    return _hash_damage(path) if fresh and flaw is None else flaw


def _hash_damage(path: pathlib.Path) -> str | None:
    """Compare a file with the hash that names its blob.

    A blob is named by the SHA-256 of its content, or as git names it if it is small;
    where the blob is itself a link, the client has compared it.
    """
    name = _blob_name(path)
    if name is None or (path.parent / os.readlink(path)).is_symlink():
        return None
    if len(name) == _SHA256_DIGITS:
        digest = hashlib.sha256()
    elif len(name) == _GIT_SHA1_DIGITS:
        digest = hashlib.sha1(usedforsecurity=False)
        digest.update(b"blob %d\0" % path.stat().st_size)
    else:
        return None
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return None if digest.hexdigest() == name else f"content that is not {name}"


def _blob_name(path: pathlib.Path) -> str | None:
    """Return the blob behind a file of a snapshot; None where links are off."""
    return pathlib.PurePath(os.readlink(path)).name if path.is_symlink() else None
