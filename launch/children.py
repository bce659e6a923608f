"""What a child process shares with its parent: the parent's end, and its own output.

Turns a child's output into lines of ours that say which process wrote them. It refuses
to know what the lines mean, two excepted that mean nothing.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, TextIO

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)")
_NOISE = re.compile(
    rb"\[Gloo\] Rank \d+ is connected to \d+ peer ranks"
    rb"|W\d{4} .*\] Using experimental recoverable task feature"
)
"""What Gloo and jaxlib 0.10.2 write at every start of several processes, as they should
be; neither has a switch of its own. To be dropped with what writes it."""
_READ_BYTES = 1 << 16
_ORPHANED = 6


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """Return what a child calls before its program, so that it outlives no parent.

    Linux ends the child with SIGKILL when the thread that started it is gone; other
    systems have nothing like it, and there a killed parent leaves its children.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it had gone before we asked
            os._exit(_ORPHANED)

    return bind


def relay_output(
    process: subprocess.Popen[bytes], prefix: str
) -> list[threading.Thread]:
    """Start to copy a child's output to ours, each line behind `prefix`, without noise.

    Returns the threads that copy; they end with the output.
    """
    pairs = ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    threads = [
        threading.Thread(target=_copy, args=(source, target, prefix), daemon=True)
        for source, target in pairs
        if source is not None
    ]
    for thread in threads:
        thread.start()
    return threads


def _copy(source: IO[bytes], target: TextIO, prefix: str) -> None:
    """Copy whole lines; a carriage return, as progress bars print it, ends one too."""
    rest = b""
    with source:
        while piece := os.read(source.fileno(), _READ_BYTES):
            rest += piece
            end = 0
            for found in _LINE.finditer(rest):
                _write(target, prefix, found[0])
                end = found.end()
            rest = rest[end:]
        if rest:
            _write(target, prefix, rest)


def _write(target: TextIO, prefix: str, line: bytes) -> None:
    if _NOISE.match(line):
        return
    text = line.decode("utf-8", errors="replace").rstrip("\r\n")
    target.write(f"{prefix}{text}\n")
    target.flush()
