"""Workers send each other arrays directly: whole, in order, and to nobody who lacks the key."""

import concurrent.futures
import contextlib
import multiprocessing.connection
import socket
import time

import numpy as np
import pytest

from repast_dist.farm.failures import PeersLost
from repast_dist.farm.peers import NoPeers, SocketPeers, decode, encode

HERE = "127.0.0.1"


@contextlib.contextmanager
def connected(count, timeout_s=10.0):
    """Workers of one process, each connected to all others."""
    peers = {3 * number: SocketPeers(HERE, timeout_s) for number in range(count)}
    endpoints = {worker: own.endpoint for worker, own in peers.items()}
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        try:
            joined = [
                pool.submit(own.connect, h, endpoints, b"key", 10.0) for h, own in peers.items()
            ]
            for one in joined:
                one.result()
            yield peers, pool
        finally:
            for own in peers.values():
                own.close()


def exchange(own, step, part, messages):
    own.send(step, part, messages)
    return own.receive(step, part)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_worker_gets_what_the_others_sent_it(count):
    random = np.random.default_rng(0)
    with connected(count) as (peers, pool):
        for step in range(5):
            sent = {
                (a, b): {("x", a, b): random.standard_normal((a + 1, b + 2)), (step,): np.arange(a)}
                for a in peers
                for b in peers
                if a != b
            }
            answers = {
                worker: pool.submit(
                    exchange, own, step, "sums", {b: m for (a, b), m in sent.items() if a == worker}
                )
                for worker, own in peers.items()
            }
            for worker, answer in answers.items():
                received = answer.result()
                assert list(received) == [other for other in peers if other != worker]
                for other, arrays in received.items():
                    assert arrays.keys() == sent[other, worker].keys()
                    for key, values in sent[other, worker].items():
                        assert arrays[key].dtype == values.dtype
                        np.testing.assert_array_equal(arrays[key], values)


def test_messages_larger_than_any_buffer_pass_both_ways_at_once():
    values = np.random.default_rng(0).standard_normal(4_000_000)
    with connected(2) as (peers, pool):
        answers = [
            pool.submit(exchange, own, 0, "sums", {3 - worker: {("x",): values}})
            for worker, own in peers.items()
        ]
        for answer in answers:
            ((_, arrays),) = answer.result().items()
            np.testing.assert_array_equal(arrays["x",], values)


def test_a_message_keeps_dtypes_shapes_and_empty_arrays():
    arrays = {
        ("a", 1): np.arange(6, dtype=np.float32).reshape(2, 3),
        ("b",): np.empty((0, 4)),
        (): np.array([True, False]),
        ("not contiguous",): np.arange(12).reshape(3, 4).T,
    }
    buffers = encode(7, "columns", arrays)
    message = np.frombuffer(b"".join(buffers), np.uint8)
    header_size = int.from_bytes(message[:8].tobytes())
    step, part, received = decode(header_size, message[16:])
    assert (step, part) == (7, "columns")
    assert list(received) == list(arrays)
    for key, values in arrays.items():
        assert received[key].dtype == values.dtype
        np.testing.assert_array_equal(received[key], values)


def test_a_worker_that_goes_away_is_noticed_at_once():
    with connected(3) as (peers, pool):
        started = time.monotonic()
        waiting = pool.submit(exchange, peers[0], 0, "sums", {3: {}, 6: {}})
        time.sleep(0.1)
        peers[6].close()
        with pytest.raises(PeersLost, match="worker 6"):
            waiting.result()
        assert time.monotonic() - started < 5.0


def test_a_worker_that_says_nothing_is_named():
    with connected(3, timeout_s=0.3) as (peers, pool):
        for worker in (0, 3):
            messages = {other: {} for other in peers if other != worker}
            pool.submit(peers[worker].send, 2, "sums", messages).result()
        with pytest.raises(PeersLost, match=r"step 2: no word from workers \[6\] in 0.3 s"):
            peers[0].receive(2, "sums")


def test_workers_at_different_steps_do_not_mix():
    with connected(2) as (peers, _):
        peers[0].send(4, "sums", {3: {}})
        peers[3].send(5, "sums", {0: {}})
        with pytest.raises(PeersLost, match="worker 3 is at step 5"):
            peers[0].receive(4, "sums")


def test_strangers_are_turned_away_and_do_not_stop_the_others():
    first, second = SocketPeers(HERE, 5.0), SocketPeers(HERE, 5.0)
    endpoints = {0: first.endpoint, 1: second.endpoint}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        joined = pool.submit(first.connect, 0, endpoints, b"key", 20.0)
        with socket.create_connection(first.endpoint) as hasty:
            hasty.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises((multiprocessing.AuthenticationError, OSError, EOFError)):
            multiprocessing.connection.Client(first.endpoint, authkey=b"another key")
        pool.submit(second.connect, 1, endpoints, b"key", 20.0).result()
        joined.result()
        second.send(0, "sums", {0: {("x",): np.ones(3)}})
        first.send(0, "sums", {1: {}})
        np.testing.assert_array_equal(first.receive(0, "sums")[1]["x",], np.ones(3))
        first.close(), second.close()


def test_a_worker_that_nobody_joins_says_who_is_missing():
    alone = SocketPeers(HERE, 5.0)
    with pytest.raises(PeersLost, match=r"workers \[1, 2\] did not connect in 0.2 s"):
        alone.connect(0, {0: alone.endpoint, 1: (HERE, 1), 2: (HERE, 1)}, b"key", 0.2)


def test_a_worker_with_all_chips_waits_for_nobody():
    alone = NoPeers()
    alone.send(0, "sums", {})
    assert alone.receive(0, "sums") == {}
