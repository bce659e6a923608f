"""The processes of a run become one JAX program, and end together.

Turns a meeting point into JAX's distributed runtime with a watch over it. It refuses
to know what the run does: it is told when the run gets further and when it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax._src import distributed

from trainer.config.ending import when_ending
from trainer.config.errors import RunError
from trainer.config.interruption import Interrupted
from trainer.config.schema import RunConfig
from trainer.distribution.detection import Rendezvous, find_rendezvous
from trainer.distribution.roll_call import call_roll
from trainer.distribution.watch import Watch

_JAX_HEARTBEAT_FACTOR = 4  # our watch speaks first: it has names
_ALONE_SECONDS = 60
_LISTEN_SECONDS = 4.0  # longer than a process may be silent


class _Membership:
    """This process's part in a run of several; one for the life of the process."""

    watch: Watch | None = None
    hosts: tuple[str, ...] = ()
    words: str = ""
    seconds: float = 0.0


def join(config: RunConfig, facts: Mapping[str, Any]) -> None:
    """Meet the other processes, once; a run of one process does nothing.

    Call it before anything asks JAX for devices.

    Args:
        config: Its `distributed` keys say how to meet.
        facts: What has to be the same in all processes, JSON-able.

    Raises:
        PeerLostError: A process is missing.
        ConfigError: The processes do not belong together.
    """
    if _Membership.watch is not None:
        return
    settings = config.distributed
    meeting = find_rendezvous(settings, simulated=config.device.simulated)
    if meeting is None:
        return
    hosts = call_roll(meeting, facts, seconds=settings.initialize_seconds)
    _end_with_6_where_jax_aborts()
    _start_jax(meeting, settings.heartbeat_seconds)
    when_ending(leave)
    _Membership.hosts = tuple(hosts)
    _Membership.seconds = settings.stuck_seconds
    _Membership.watch = Watch(
        distributed.global_state.client,
        meeting.index,
        hosts,
        heartbeat_seconds=settings.heartbeat_seconds,
        stuck_seconds=settings.stuck_seconds,
    )


def advance(place: str) -> None:
    """Say that this process got further: `place` is where it is now, for messages."""
    if _Membership.watch is not None:
        _Membership.watch.advance(place)


def hosts() -> tuple[str, ...]:
    """Return the hosts of the run's processes by index; one name when it is alone."""
    return _Membership.hosts or (os.uname().nodename,)


def patience_seconds() -> float:
    """Return how long to wait for another process: less than makes this one stuck."""
    return 0.9 * _Membership.seconds or _ALONE_SECONDS


def is_joined() -> bool:
    """Return whether this is one process of several."""
    return _Membership.watch is not None


def silent_peers() -> list[str]:
    """Return the processes that have ended or say nothing, after listening a while."""
    if _Membership.watch is None:
        return []
    time.sleep(_LISTEN_SECONDS)
    return _Membership.watch.silent()


def told_to_end() -> Interrupted | None:
    """Return the signal that another process ended for, if that is what happened."""
    return None if _Membership.watch is None else _Membership.watch.told_to_end()


def concluding() -> contextlib.AbstractContextManager[None]:
    """Return a context in which this process closes what a run leaves, at leisure.

    The others have ended for the same reason and had less to close: that they are gone
    is then none to end before it is done.
    """
    watch = _Membership.watch
    return contextlib.nullcontext() if watch is None else watch.concluding()


def note_end(error: RunError) -> None:
    """Keep the words that the others are told when this process leaves."""
    _Membership.words = f"{error.title}: {error.key}: {error.received}"[:400]


def leave(code: int) -> None:
    """End a process of several with `code`, at once; alone it returns.

    Python's own end would wait in JAX's shutdown for processes that are gone.
    """
    if _Membership.watch is None:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    _Membership.watch.end(code, _Membership.words)
    os._exit(code)


def _start_jax(meeting: Rendezvous, heartbeat_seconds: int) -> None:
    """Make one JAX program of processes that have all just answered a roll call.

    Who does not come now has died since: nobody waits for `initialize_seconds` again.
    """
    seconds = _JAX_HEARTBEAT_FACTOR * heartbeat_seconds
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # our handlers take SIGTERM, and the watch finds who is lost (JAX 0.10.2 would
    # abort every process without saying whom it missed)
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_enable_recoverability", True)
    jax.distributed.initialize(
        coordinator_address=meeting.address,
        num_processes=meeting.count,
        process_id=meeting.index,
        local_device_ids=meeting.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=seconds,
        heartbeat_timeout_seconds=seconds,
    )


def _end_with_6_where_jax_aborts() -> None:
    """Dump stacks and exit 6 on SIGABRT, which is what a lost process 0 causes.

    jaxlib 0.10.2 calls abort() from a thread of its own when the key-value store is
    gone. The handler is libc's `_exit`, and the signal it is called with is 6.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    faulthandler.disable()
    libc.signal(signal.SIGABRT, ctypes.cast(libc._exit, ctypes.c_void_p))
    faulthandler.enable()  # first the stacks, then the handler before it
