"""A growing file of JSON objects, one a line, that survives a kill.

Turns objects into lines of a local file that is copied to where the run lives, and
such a file into objects again. It refuses to know what the objects say, and asks the
run's storage for no append: a remote file is written whole, now and then. Only the
local file is opened here; `trainer.storage` knows whole files, not growing ones.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from typing import Any

from etils import epath

from trainer import storage

UPLOAD_SECONDS = 30.0


class LineFile:
    """Appends objects; what was appended survives the process at once.

    Args:
        path: Where the file belongs. On this machine it is written in place;
            elsewhere a local copy is, uploaded every `upload_seconds` at most.
    """

    def __init__(
        self, path: epath.PathLike, *, upload_seconds: float = UPLOAD_SECONDS
    ) -> None:
        self._path = epath.Path(path)
        self._upload_seconds = upload_seconds
        self._uploaded_at = time.monotonic()
        self._pending = False
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        if storage.is_local(path):
            self._local = os.fspath(self._path)
            os.makedirs(os.path.dirname(self._local) or ".", exist_ok=True)
        else:
            self._scratch = tempfile.TemporaryDirectory(prefix="trainer-")
            self._local = os.path.join(self._scratch.name, self._path.name)
            if storage.exists(path):
                storage.download(path, self._local)
        self._file = open(self._local, "ab")  # noqa: SIM115  # open for the whole run
        self._drop_torn_line()

    def append(self, value: dict[str, Any]) -> None:
        """Add one object."""
        self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._file.flush()  # the kernel has it: SIGKILL takes nothing back
        self._pending = True
        if time.monotonic() - self._uploaded_at >= self._upload_seconds:
            self.flush()

    def flush(self) -> None:
        """Copy to where the file belongs what was added since the last time."""
        if self._scratch is not None and self._pending:
            storage.upload(self._local, self._path)
        self._uploaded_at, self._pending = time.monotonic(), False

    def close(self) -> None:
        """Copy what is left and let go of the file."""
        self.flush()
        self._file.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _drop_torn_line(self) -> None:
        """Cut a last line that a killed machine left without its end."""
        with open(self._local, "rb") as file:
            content = file.read()
        if content and not content.endswith(b"\n"):
            self._file.truncate(content.rfind(b"\n") + 1)


def read_lines(path: epath.PathLike) -> list[dict[str, Any]]:
    """Return the objects of a file, none if it is not there.

    Lines that are no JSON object, such as a torn one, are left out.
    """
    if not storage.exists(path):
        return []
    found = []
    for line in storage.read_bytes(path).splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def as_number(value: Any) -> int | float | None:  # noqa: ANN401  # arrays of any kind
    """Return a scalar, also one of an array library, as JSON has numbers.

    None stands for a number that is not finite: JSON has no word for it.
    """
    if isinstance(value, bool | int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
