"""Small values and errors between the processes of a run, without any computation.

Turns what one process knows, or what each of them met, into the same value or the same
error in all of them, over JAX's key-value store. Every process calls these functions
alike and in the same order. Alone, a process only talks to itself. It refuses to know
arrays: nothing here compiles.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
from jax._src import distributed

from trainer.config import errors
from trainer.config.errors import ConfigErrors, PeerLostError, RunError
from trainer.distribution.joining import advance, hosts, patience_seconds
from trainer.distribution.roll_call import difference_error, differences

T = TypeVar("T")
_SLICE_SECONDS = 10.0
_rounds = itertools.count()


def gather(name: str, value: Any) -> list[Any]:  # noqa: ANN401  # JSON has every type
    """Return the JSON-able values of all processes, by index.

    Raises:
        PeerLostError: A process did not come in time; it is named.
    """
    store = _store()
    if store is None:
        return [json.loads(json.dumps(value))]
    advance(name)
    place = f"trainer/said/{next(_rounds)}/{name}/"
    state = distributed.global_state
    store.key_value_set(f"{place}{state.process_id}", json.dumps(value))
    said = [_wait(store, f"{place}{i}", name, i) for i in range(state.num_processes)]
    advance(name)
    return [json.loads(text) for text in said]


def from_primary(name: str, call: Callable[[], T]) -> T:
    """Return in every process what `call` returns in process 0, JSON-able.

    Raises:
        RunError: Whatever it raised there.
    """
    if _store() is None:
        return call()
    advance(name)
    met = None
    state = distributed.global_state
    if state.process_id == 0:
        met = _try(call)
    said = _one(name, met)
    return _result(said, 0)


def agree(name: str, call: Callable[[], T]) -> T:
    """Return what `call` returns here, once it went well in every process.

    Raises:
        RunError: What the first process that failed raised, with its name.
    """
    if _store() is None:
        return call()
    advance(name)
    value, error = None, None
    try:
        value = call()
    except RunError as raised:
        error = _described(raised)
    for index, other in enumerate(gather(name, error)):
        if other is not None:
            raise _raised(other, index)
    return value  # type: ignore[return-value]  # no process raised, so `call` returned


def check_same(name: str, facts: Mapping[str, Any]) -> None:
    """Refuse facts that are not the same in all processes, in all of them.

    Raises:
        ConfigError: Every fact that differs, with the processes and hosts.
    """
    said = gather(name, dict(facts))
    here = {index: {"facts": told} for index, told in enumerate(said)}
    if found := differences(here):
        raise difference_error(found, dict(enumerate(hosts())))


def channel(name: str) -> Callable[[int, Any], list[Any]]:
    """Return what tells all processes the values of numbered rounds, from any thread.

    The numbers rise, and each process asks for them alike; what all have read is
    forgotten. Making a channel is a call of all processes, as of every function here.
    """
    store, state = _store(), distributed.global_state
    place = f"trainer/told/{next(_rounds)}/{name}/"
    before: list[str] = []

    def tell(number: int, value: Any) -> list[Any]:  # noqa: ANN401  # JSON
        mine = f"{place}{number}/"
        store.key_value_set(f"{mine}{state.process_id}", json.dumps(value))
        said = [_wait(store, f"{mine}{i}", name, i) for i in range(state.num_processes)]
        # who has told this round has read the one before, so that it can go
        for old in before:
            store.key_value_delete(old)
        before[:] = [f"{mine}{state.process_id}"]
        return [json.loads(text) for text in said]

    return tell


def wait_for_all(name: str) -> None:
    """Return when every process has come here."""
    gather(name, None)


def _store() -> Any:  # noqa: ANN401  # jaxlib's client has no public type
    return distributed.global_state.client


def _one(name: str, met: dict[str, Any] | None) -> dict[str, Any]:
    """Return what process 0 put down."""
    store = _store()
    advance(name)
    place = f"trainer/said/{next(_rounds)}/{name}"
    if met is not None:
        store.key_value_set(place, json.dumps(met))
        return json.loads(json.dumps(met))
    text = _wait(store, place, name, 0)
    advance(name)
    return json.loads(text)


def _try(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": call()}
    except RunError as raised:
        return {"error": _described(raised)}


def _result(said: dict[str, Any], index: int) -> Any:  # noqa: ANN401
    if "error" in said:
        raise _raised(said["error"], index)
    return said["value"]


def _wait(store: Any, place: str, name: str, index: int) -> str:  # noqa: ANN401
    """Return what another process put down, however often one has to look."""
    until = time.monotonic() + patience_seconds()
    while True:
        left = min(_SLICE_SECONDS, max(until - time.monotonic(), 0.1))
        try:
            return store.blocking_key_value_get(place, int(1000 * left))
        except jax.errors.JaxRuntimeError as error:
            is_late = "DEADLINE_EXCEEDED" in str(error)
            if is_late and time.monotonic() < until:
                continue
            raise PeerLostError(
                key=f"process {index} on {hosts()[index]}",
                expected=f"a word on: {name}",
                received=f"nothing for {patience_seconds():g} s"
                if is_late
                else "no process 0 any more",
                fix="the log of that process says why; then the same command goes on",
            ) from error


def _described(error: RunError) -> dict[str, Any]:
    problems = error.problems if isinstance(error, ConfigErrors) else (error,)
    return {
        "kind": type(problems[0]).__name__,
        "problems": [
            {
                "key": p.key,
                "expected": p.expected,
                "received": p.received
                if isinstance(p.received, str)
                else repr(p.received),
                "fix": p.fix,
            }
            for p in problems
        ],
    }


def _raised(described: dict[str, Any], index: int) -> RunError:
    """Return an error as another process raised it."""
    kind = getattr(errors, described["kind"])
    problems = [
        kind(
            **{**p, "received": f"{p['received']} (process {index} on {_host(index)})"}
        )
        for p in described["problems"]
    ]
    return problems[0] if len(problems) == 1 else ConfigErrors(problems)


def _host(index: int) -> str:
    names = hosts()
    return names[index] if index < len(names) else "another host"
