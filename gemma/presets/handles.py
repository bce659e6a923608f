"""Handles of published presets, turned into a directory on this machine.

Turns `kaggle://owner/model/keras/variation[/version]` and `hf://owner/model[@revision]`
into a folder, through the publishers' own clients and caches. It refuses to know what
the folder holds, and to ask for credentials: an error says where they belong.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

from etils import epath

from gemma.presets import hub, kaggle
from gemma.presets.errors import PresetFileError, status_of

KAGGLE = "kaggle://"
HUGGING_FACE = "hf://"

_KAGGLE_HANDLE = re.compile(r"[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+(/\d+)?")
_HUGGING_FACE_HANDLE = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_KAGGLE_VERSION_SLASHES = 4

# Raised before a server was asked.
_LOG_IN = ("UnauthenticatedError", "LocalTokenNotFoundError", "CredentialError")


def is_handle(preset: str) -> bool:
    """Return whether `preset` names a place to download from."""
    return preset.startswith((KAGGLE, HUGGING_FACE))


def download(handle: str, *, weights: bool = True) -> epath.Path:
    """Return the local directory of a handle, downloaded unless it is cached.

    Args:
        handle: Of Kaggle or the Hugging Face Hub.
        weights: False fetches configuration and vocabulary only.

    Raises:
        PresetFileError: The handle is misspelt, its client refused or failed, or a
            file that it brought is damaged.
    """
    if handle.startswith(KAGGLE):
        name = _match(_KAGGLE_HANDLE, handle, KAGGLE, "owner/model/keras/variation")[0]
        return _fetch(
            handle,
            lambda: kaggle.fetch_kaggle(name, weights=weights),
            page=f"https://www.kaggle.com/models/{'/'.join(name.split('/')[:2])}",
            log_in="set KAGGLE_USERNAME and KAGGLE_KEY or write ~/.kaggle/kaggle.json",
            again=f"it goes on where it stopped{_cached_kaggle(name)}",
        )
    found = _match(_HUGGING_FACE_HANDLE, handle, HUGGING_FACE, "owner/model")
    return _fetch(
        handle,
        lambda: hub.fetch_hugging_face(found[1], found[2], weights=weights),
        page=f"https://huggingface.co/{found[1]}",
        log_in="run `hf auth login` or set HF_TOKEN",
        again="files that are complete are kept",
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


def _cached_kaggle(name: str) -> str:
    """Say which version needs no network: without one, Kaggle is asked for it."""
    versions = kaggle.cached_versions(name)
    if not versions or name.count("/") == _KAGGLE_VERSION_SLASHES:
        return ""
    return f"; or name the version in the cache, {KAGGLE}{name}/{versions[-1]}"


def _fetch(
    handle: str,
    call: Callable[[], pathlib.Path],
    *,
    page: str,
    log_in: str,
    again: str,
) -> epath.Path:
    """Run a client and say what its errors ask for."""
    try:
        return epath.Path(call())
    except PresetFileError:
        raise
    except Exception as error:  # the clients share no class of errors
        cause = _cause(error)
        status, kind = status_of(cause), type(cause).__name__
        if status in (401, 403) or kind in _LOG_IN:
            fix = f"accept the licence at {page}, then {log_in}"
        elif status == 404:
            fix = f"see {page}: is the name right? If the model is private, {log_in}"
        elif status == 429:
            fix = f"wait some minutes and run it again; for a higher limit {log_in}"
        elif status is not None:
            fix = f"run it again later: {again}"
        elif _is_offline(error):
            fix = "unset HF_HUB_OFFLINE, or pass a directory that was downloaded before"
        else:
            fix = (
                f"check the network and run it again: {again}; "
                "or pass a directory that was downloaded before"
            )
        reason = (str(cause).strip().splitlines() or ["no message"])[0].rstrip(".")
        raise PresetFileError(
            handle, expected="a download", received=f"{kind}: {reason}", fix=fix
        ) from error


def _is_offline(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ == "OfflineModeIsEnabled":
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _cause(error: BaseException) -> BaseException:
    """Return the first error behind `error` that carries a server's answer."""
    seen: BaseException | None = error
    while seen is not None:
        if status_of(seen) is not None:
            return seen
        seen = seen.__cause__ or seen.__context__
    return error
