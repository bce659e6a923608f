"""Compiled programs, kept on this machine for the next start.

Turns `trainer.compilation_cache` into a directory of JAX's persistent cache: one for
each kind of processor and version of JAX, bounded, and swept of what a killed process
left half written. It refuses to be a reason for a run to stop: where nothing can be
kept, one line says so and programs are compiled as ever.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator

import filelock
import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

PROJECT = "gemma-trainer"
MAX_BYTES = 2 * 2**30  # of one directory; the programs used longest ago go first
UNUSED_SECONDS = 30 * 24 * 3600  # after which another processor's directory goes
LOCK_SECONDS = 10.0
LOCK = ".lockfile"  # JAX's name for it

_OWN = "JAX_COMPILATION_CACHE_DIR"
_OURS = re.compile(r"jax-\d[^-]*-[0-9a-f]{16}")

CPUINFO = pathlib.Path("/proc/cpuinfo")
_PROCESSOR_FIELDS = (
    *("vendor_id", "cpu family", "model", "stepping", "flags"),  # x86
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"),
)


def keep_compiled_programs(choice: str, say: Callable[[str], None]) -> str | None:
    """Let JAX read and write compiled programs where `choice` says; return where.

    Args:
        choice: `auto` is below JAX_COMPILATION_CACHE_DIR where that is set, and below
            the user's cache directory elsewhere; `none`; or a directory.
        say: Shows the one line where nothing can be kept.
    """
    own = os.environ.get(_OWN)
    if choice == "auto" and own is not None and (not own or "://" in own):
        return own  # nothing, or a bucket: JAX's own affair
    directory = None
    if choice != "none":
        try:
            directory = _root(choice) / fingerprint()
            _prepare(directory)
        except (OSError, RuntimeError) as error:  # a lock in time, a home directory
            say(f"compiled programs are not kept: {error}")
            directory = None
    _use(directory, set() if choice != "auto" else {n.lower() for n in os.environ})
    return None if directory is None else str(directory)


def own_directory() -> pathlib.Path | None:
    """Return the directory that JAX was pointed at; None where it is not one of ours.

    One of ours belongs to this user, this kind of processor and this JAX.
    """
    path = pathlib.Path(jax.config.jax_compilation_cache_dir or "")
    return path if _OURS.fullmatch(path.name) else None


def fingerprint(cpuinfo: pathlib.Path = CPUINFO) -> str:
    """Return a name for what a compiled program depends on and JAX's key leaves out.

    XLA compiles for the processor that it runs on, and for as many threads as there
    are cores: elsewhere a program of the CPU could stop at an unknown instruction, or
    add in another order.
    """
    cores = os.environ.get("NPROC") or str(_cores())
    facts = [platform.system(), platform.machine(), jaxlib.__version__, cores]
    text = "\n".join([*facts, *_processor(cpuinfo)])
    return f"jax-{jax.__version__}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _root(choice: str) -> pathlib.Path:
    if choice != "auto":
        return pathlib.Path(choice).expanduser().absolute() / PROJECT
    if own := os.environ.get(_OWN):
        return pathlib.Path(own).absolute() / PROJECT
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # the XDG specification: others are to be ignored
        cache = pathlib.Path.home() / ".cache"
    return cache / PROJECT / "compiled"


def _prepare(directory: pathlib.Path) -> None:
    """Make a directory that can be written and locked, and tidy it up.

    Raises:
        OSError: It cannot be written or locked.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # programs are trusted
    with filelock.FileLock(directory / LOCK).acquire(timeout=LOCK_SECONDS):
        os.utime(directory)  # in use: no other process takes it for an old one
        for entry in _unfinished(directory):
            entry.unlink(missing_ok=True)
    for other in directory.parent.iterdir():
        if _is_ours(other) and time.time() - other.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(other, ignore_errors=True)


def _is_ours(path: pathlib.Path) -> bool:
    """Whether this module made a directory: by its whole name and by its lock."""
    return _OURS.fullmatch(path.name) is not None and (path / LOCK).is_file()


def _unfinished(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield programs without the mark that JAX writes after them, and lone marks.

    JAX 0.10.2 reads a torn program again and again, and adds none beside one that has
    no mark.
    """
    pairs = {"-cache": "-atime", "-atime": "-cache"}
    for entry in directory.iterdir():
        for ending, other in pairs.items():
            stem = entry.name.removesuffix(ending)
            if stem != entry.name and not (directory / (stem + other)).exists():
                yield entry


def _use(directory: pathlib.Path | None, decided: set[str]) -> None:
    """Point JAX at a directory; an earlier run of this process may have had another.

    Options that the user `decided` by variables of JAX keep their values.
    """
    path = None if directory is None else str(directory)
    if jax.config.jax_compilation_cache_dir != path:
        compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", path)
    options = {
        "jax_compilation_cache_max_size": MAX_BYTES,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name in options.keys() - decided:
        jax.config.update(name, options[name])


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor(cpuinfo: pathlib.Path) -> list[str]:
    """Return what tells this processor's instructions from another's.

    Where the system does not list them, the machine's name stands for them.
    """
    if not cpuinfo.exists():
        return [platform.processor(), platform.node()]
    first, _, _ = cpuinfo.read_text().partition("\n\n")
    fields = [line.partition(":") for line in first.splitlines()]
    return [v.strip() for name, _, v in fields if name.strip() in _PROCESSOR_FIELDS]
