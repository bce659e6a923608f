"""Processes that find each other, or say who is missing and what differs."""

import concurrent.futures
import contextlib
import json
import socket
import threading
import time

import pytest

from trainer.config.errors import ConfigError, ConfigErrors, PeerLostError
from trainer.distribution.detection import Rendezvous
from trainer.distribution.roll_call import call_roll

HOST = socket.gethostname()


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def call(port, *indices, count=3, seconds=20.0, facts=None):
    """Return what each of the processes gets: hosts, or an error."""

    def one(index):
        meeting = Rendezvous(f"127.0.0.1:{port}", count, index)
        try:
            return call_roll(meeting, (facts or {}).get(index, {}), seconds=seconds)
        except (ConfigError, PeerLostError) as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(indices)) as pool:
        return list(pool.map(one, indices))


def patiently_connected(port):
    """Return a connection to process 0, which may not listen yet."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), 1)
        time.sleep(0.01)
    raise AssertionError("nobody listens")


def test_processes_that_have_all_come_know_their_hosts(port):
    same = dict.fromkeys(range(3), {"seed": 0})
    assert call(port, 2, 0, 1, facts=same) == [[HOST] * 3] * 3


def test_the_port_is_free_again_afterwards(port):
    call(port, 0, 1, 2)
    assert call(port, 0, 1, 2) == [[HOST] * 3] * 3


def test_whoever_has_come_names_whoever_is_missing(port):
    errors = call(port, 0, 2, count=5, seconds=1.0)
    for error in errors:
        assert isinstance(error, PeerLostError)
        assert error.received == f"missing: 1, 3, 4; here: 0 on {HOST}, 2 on {HOST}"
        assert error.expected.startswith("5 processes within 1 s")


def test_a_missing_process_0_is_named_with_its_address(port):
    error = call(port, 1, seconds=1.0)[0]
    assert isinstance(error, PeerLostError)
    assert error.expected == f"process 0 at 127.0.0.1:{port}"
    assert f"seen from process 1 on {HOST}" in error.received


def test_a_taken_port_is_named_with_another_one(port):
    with socket.create_server(("", port)):
        error = call(port, 0, seconds=1.0)[0]
    assert isinstance(error, ConfigError)
    assert error.expected == f"a port that is free on {HOST}"
    assert error.received == f"127.0.0.1:{port}: Address already in use"
    assert f"distributed.coordinator=127.0.0.1:{port + 1}" in error.fix


def test_another_program_at_the_address_is_no_process_0(port):
    with socket.create_server(("", port)) as other:

        def answer():
            while True:
                try:
                    with other.accept()[0] as peer:
                        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        error = call(port, 1, seconds=1.0)[0]
        other.shutdown(socket.SHUT_RDWR)
    assert "process 0 is missing: another program answered there" in error.received


def test_strangers_do_not_count(port):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, port, 0, count=2)
        with patiently_connected(port) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\n")
            assert stranger.recv(1) == b""  # hung up on
        assert call(port, 1, count=2) == waiting.result() == [[HOST] * 2]


def test_a_process_that_died_while_it_waited_can_be_started_again(port):
    greeting = {"greeting": "gemma-trainer roll call 1", "index": 1, "host": "gone"}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, port, 0)
        with patiently_connected(port) as died:
            died.sendall(json.dumps(greeting | {"facts": {}}).encode() + b"\n")
        assert call(port, 1, 2) == [[HOST] * 3] * 2
        assert waiting.result() == [[HOST] * 3]


def test_what_differs_is_shown_key_by_key_in_every_process(port):
    facts = {i: {"seed": 0, "trainer.num_train_steps": 10, "code": "a"} for i in (0, 1)}
    facts[2] = {"seed": 7, "trainer.num_train_steps": 10, "code": "b"}
    for error in call(port, 0, 1, 2, facts=facts):
        assert isinstance(error, ConfigErrors)
        assert [problem.key for problem in error.problems] == ["seed", "code"]
        seed = error.problems[0]
        assert seed.received == f"7 (process 2 on {HOST})"
        assert seed.expected == (
            f"one value in all processes: 0 (process 0 on {HOST}, 1 on {HOST})"
        )


def test_two_processes_with_one_index_are_refused(port):
    for error in call(port, 0, 1, 1):
        assert error.key == "distributed.process_index"
        assert error.received == f"1 on {HOST} and on {HOST}"


def test_another_number_of_processes_is_a_difference(port):
    def one(index, count):
        meeting = Rendezvous(f"127.0.0.1:{port}", count, index)
        with pytest.raises(ConfigError) as caught:
            call_roll(meeting, {}, seconds=20.0)
        return caught.value.key

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        keys = list(pool.map(one, (0, 1), (2, 4)))
    assert keys == ["distributed.num_processes"] * 2
