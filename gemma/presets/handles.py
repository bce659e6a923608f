"""Handles of published presets, turned into a directory on this machine.

Turns `kaggle://owner/model/keras/variation[/version]` and `hf://owner/model[@revision]`
into a folder, through the publishers' own clients and caches. It refuses to know what
the folder holds, and to ask for credentials: an error says where they belong.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from etils import epath

from gemma.presets.errors import PresetFileError

KAGGLE = "kaggle://"
HUGGING_FACE = "hf://"

_KAGGLE_HANDLE = re.compile(r"[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+(/\d+)?")
_HUGGING_FACE_HANDLE = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")

# Raised before a server was asked.
_LOG_IN = ("UnauthenticatedError", "LocalTokenNotFoundError", "CredentialError")

# Only what the readers open: never a pickled .bin.
_HUGGING_FACE_FILES = ["*.json", "*.safetensors", "*.h5", "*.spm", "tokenizer.model"]


def is_handle(preset: str) -> bool:
    """Return whether `preset` names a place to download from."""
    return preset.startswith((KAGGLE, HUGGING_FACE))


def download(handle: str) -> epath.Path:
    """Return the local directory of a handle, downloaded unless it is cached.

    Raises:
        PresetFileError: The handle is misspelt, or its client refused or failed.
    """
    if handle.startswith(KAGGLE):
        name = _match(_KAGGLE_HANDLE, handle, KAGGLE, "owner/model/keras/variation")
        return _fetch(
            handle,
            lambda: _kaggle(name[0]),
            page=f"https://www.kaggle.com/models/{'/'.join(name[0].split('/')[:2])}",
            log_in="set KAGGLE_USERNAME and KAGGLE_KEY or write ~/.kaggle/kaggle.json",
        )
    name = _match(_HUGGING_FACE_HANDLE, handle, HUGGING_FACE, "owner/model")
    return _fetch(
        handle,
        lambda: _hugging_face(name[1], name[2]),
        page=f"https://huggingface.co/{name[1]}",
        log_in="run `hf auth login` or set HF_TOKEN",
    )


def _match(
    pattern: re.Pattern[str], handle: str, scheme: str, form: str
) -> re.Match[str]:
    found = pattern.fullmatch(handle.removeprefix(scheme))
    if not found or ".." in handle:
        raise PresetFileError(
            "preset",
            expected=f"{scheme}{form}",
            received=handle,
            fix="copy the handle from the model's page",
        )
    return found


def _kaggle(name: str) -> str:
    import kagglehub  # slow to import, and only needed here

    return kagglehub.model_download(name)


def _hugging_face(name: str, revision: str | None) -> str:
    import huggingface_hub  # slow to import, and only needed here

    return huggingface_hub.snapshot_download(
        name, revision=revision, allow_patterns=_HUGGING_FACE_FILES
    )


def _fetch(
    handle: str, call: Callable[[], str], *, page: str, log_in: str
) -> epath.Path:
    """Run a client and say what its errors ask for."""
    try:
        return epath.Path(call())
    except Exception as error:  # the clients share no class of errors
        cause = _cause(error)
        status, kind = _status(cause), type(cause).__name__
        if status in (401, 403) or kind in _LOG_IN:
            fix = f"accept the licence at {page}, then {log_in}"
        elif status == 404:
            fix = f"see {page}: is the name right? If the model is private, {log_in}"
        else:
            fix = "check the network, or pass a directory that was downloaded before"
        reason = (str(cause).strip().splitlines() or ["no message"])[0]
        raise PresetFileError(
            handle, expected="a download", received=f"{kind}: {reason}", fix=fix
        ) from error


def _cause(error: BaseException) -> BaseException:
    """Return the first error behind `error` that carries a server's answer."""
    seen: BaseException | None = error
    while seen is not None:
        if _status(seen) is not None:
            return seen
        seen = seen.__cause__ or seen.__context__
    return error


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
