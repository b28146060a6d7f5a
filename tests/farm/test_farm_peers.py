"""Workers send each other arrays directly: whole, in order, encrypted, and to no stranger."""

import concurrent.futures
import contextlib
import socket
import ssl
import threading
import time

import numpy as np
import pytest
from strangers import Strangers

from repast_dist.farm import peers as peers_module
from repast_dist.farm.certificate import RunCertificate
from repast_dist.farm.failures import PeersLost
from repast_dist.farm.peers import NoPeers, SocketPeers, decode, encode

HERE = "127.0.0.1"


@contextlib.contextmanager
def connected(count, timeout_s=10.0):
    """Workers of one process, each connected to all others."""
    peers = {3 * number: SocketPeers(HERE, timeout_s) for number in range(count)}
    endpoints = {worker: own.endpoint for worker, own in peers.items()}
    certificate = RunCertificate.make()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        try:
            joined = [
                pool.submit(own.connect, h, endpoints, certificate, 10.0)
                for h, own in peers.items()
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


def test_small_arrays_travel_together_and_large_ones_are_not_copied():
    large = np.random.default_rng(0).standard_normal(100_000)
    small = {(name,): np.ones(3) for name in "abc"}
    buffers = encode(0, "sums", {**small, ("x",): large, ("y",): np.ones(2), ("z",): np.ones(2)})
    assert len(buffers) == 3
    assert np.shares_memory(np.frombuffer(buffers[1]), large)


@contextlib.contextmanager
def two_joining(certificate):
    """Worker 0 waits for worker 1 in the background; yields both, their places, and the wait."""
    first, second = SocketPeers(HERE, 5.0), SocketPeers(HERE, 5.0)
    endpoints = {0: first.endpoint, 1: second.endpoint}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            yield (
                first,
                second,
                endpoints,
                pool.submit(first.connect, 0, endpoints, certificate, 20.0),
            )
        finally:
            first.close(), second.close()


def assert_numbers_pass(sender, receiver):
    sender.send(0, "sums", {0: {("x",): np.ones(3)}})
    receiver.send(0, "sums", {1: {}})
    np.testing.assert_array_equal(receiver.receive(0, "sums")[1]["x",], np.ones(3))


def answered(endpoint, context, number):
    """Do what a worker does to be let in, and return what the one that listens says."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(endpoint, timeout=10.0) as plain,
        context.wrap_socket(plain) as secured,
    ):
        secured.sendall(number.to_bytes(8))
        return secured.recv(8)
    return b""


def stranger(certificate=None):
    """A client that takes any server; it shows a certificate of its own, or none."""
    made = certificate.client_context() if certificate else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def test_strangers_are_turned_away_and_do_not_stop_the_others():
    certificate = RunCertificate.make()
    older = certificate.client_context()
    older.minimum_version, older.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    with two_joining(certificate) as (first, second, endpoints, joined):
        with socket.create_connection(first.endpoint) as hasty:
            hasty.sendall(b"GET / HTTP/1.1\r\n\r\n")
        for context in (stranger(), stranger(RunCertificate.make()), older):
            assert answered(first.endpoint, context, 1) == b""
        # One that holds the run's key is answered, so the others failed for want of it.
        assert answered(first.endpoint, certificate.client_context(), 7) == (0).to_bytes(8)
        second.connect(1, endpoints, certificate, 20.0)
        joined.result()
        assert_numbers_pass(second, first)


def test_a_worker_does_not_talk_to_a_stranger_in_the_place_of_another():
    alone, certificate = SocketPeers(HERE, 5.0), RunCertificate.make()
    with socket.create_server((HERE, 0)) as listener, concurrent.futures.ThreadPoolExecutor(1) as p:
        endpoints = {0: listener.getsockname(), 1: alone.endpoint}
        joined = p.submit(alone.connect, 1, endpoints, certificate, 5.0)
        accepted, _ = listener.accept()
        server = RunCertificate.make().server_context()
        server.verify_mode = ssl.CERT_NONE
        with pytest.raises(ssl.SSLError), accepted:
            server.wrap_socket(accepted, server_side=True)
        with pytest.raises(PeersLost, match=r"worker 0 at .*certificate verify failed"):
            joined.result()


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x01\x02\x00" + bytes(40)], ids=["silent", "slow"])
def test_a_stranger_that_says_little_or_nothing_holds_nobody_up_for_long(says, monkeypatch):
    monkeypatch.setattr("repast_dist.farm.greeting._HANDSHAKE_S", 0.5)
    certificate = RunCertificate.make()
    ended = threading.Event()

    def murmur(silent):
        for number in range(len(says)):
            if ended.wait(0.1):
                return
            silent.sendall(says[number : number + 1])

    with (
        two_joining(certificate) as (first, second, endpoints, joined),
        socket.create_connection(first.endpoint) as silent,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        started = time.monotonic()
        murmured = pool.submit(murmur, silent)
        second.connect(1, endpoints, certificate, 20.0)
        joined.result()
        assert time.monotonic() - started < 3.0
        assert_numbers_pass(second, first)
        ended.set()
        with contextlib.suppress(OSError):
            murmured.result()


def test_a_worker_that_was_too_slow_to_show_its_key_tries_again(monkeypatch):
    monkeypatch.setattr("repast_dist.farm.greeting._HANDSHAKE_S", 0.3)
    certificate = RunCertificate.make()
    whole, pauses = peers_module._secured, iter([0.8, 0.8])

    def slowly(*given):
        time.sleep(next(pauses, 0.0))
        return whole(*given)

    monkeypatch.setattr(peers_module, "_secured", slowly)
    with two_joining(certificate) as (first, second, endpoints, joined):
        second.connect(1, endpoints, certificate, 20.0)
        joined.result()
        assert next(pauses, None) is None
        assert_numbers_pass(second, first)


def test_many_silent_strangers_keep_nobody_waiting_and_the_door_is_closed_at_the_end():
    certificate = RunCertificate.make()
    with (
        two_joining(certificate) as (first, second, endpoints, joined),
        contextlib.ExitStack() as strangers,
    ):
        for _ in range(40):
            strangers.enter_context(socket.create_connection(first.endpoint))
        started = time.monotonic()
        second.connect(1, endpoints, certificate, 20.0)
        joined.result()
        # One after the other they would take five seconds each.
        assert time.monotonic() - started < 4.0
        assert_numbers_pass(second, first)
        for endpoint in endpoints.values():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(endpoint)
        # Who has to join anew says where, and is not kept from it by those before.
        endpoints = {0: first.endpoint, 1: second.endpoint}
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            again = pool.submit(first.connect, 0, endpoints, certificate, 20.0)
            second.connect(1, endpoints, certificate, 20.0)
            again.result()
        assert_numbers_pass(second, first)


def test_strangers_of_every_kind_do_not_keep_workers_from_joining_after_a_loss():
    peers = {3 * number: SocketPeers(HERE, 20.0) for number in range(3)}
    with Strangers() as strangers, concurrent.futures.ThreadPoolExecutor(3) as pool:
        for step in range(3):
            endpoints = {worker: own.endpoint for worker, own in peers.items()}
            strangers.bother(endpoints.values(), of_each_kind=3)
            time.sleep(0.3)
            certificate = RunCertificate.make()
            started = time.monotonic()
            joined = [
                pool.submit(own.connect, worker, endpoints, certificate, 60.0)
                for worker, own in peers.items()
            ]
            for one in joined:
                one.result()
            # One stranger after the other would take minutes.
            assert time.monotonic() - started < 15.0
            messages = {
                worker: {other: {("x",): np.full(9, worker)} for other in peers if other != worker}
                for worker in peers
            }
            answers = {
                worker: pool.submit(exchange, own, step, "sums", messages[worker])
                for worker, own in peers.items()
            }
            for answer in answers.values():
                for other, arrays in answer.result().items():
                    np.testing.assert_array_equal(arrays["x",], np.full(9, other))
            # One is killed in the middle of the next step and comes back elsewhere.
            lost = pool.submit(exchange, peers[0], step, "rows", {3: {}, 6: {}})
            peers[6].close()
            with pytest.raises(PeersLost):
                lost.result()
            peers[6] = SocketPeers(HERE, 20.0)
        assert sum(strangers.met.values()) > 50
    for own in peers.values():
        own.close()


class Between:
    """A place on the way from worker 1 to worker 0; it keeps, and may change, what passes."""

    def __init__(self, endpoint):
        self.heard = bytearray()
        self.changes = threading.Event()
        self._endpoint = endpoint
        self._listener = socket.create_server((HERE, 0))
        self.endpoint = self._listener.getsockname()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        inner, outer = self._listener.accept()[0], socket.create_connection(self._endpoint)
        for ends in ((inner, outer), (outer, inner)):
            threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source, sink):
        with contextlib.suppress(OSError):
            while some := bytearray(source.recv(65536)):
                self.heard.extend(some)
                if self.changes.is_set():
                    some[len(some) // 2] ^= 1
                sink.sendall(some)
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def two_with_somebody_between():
    """Workers 0 and 1, connected through a place that belongs to somebody else."""
    certificate = RunCertificate.make()
    first, second = SocketPeers(HERE, 5.0), SocketPeers(HERE, 5.0)
    between = Between(first.endpoint)
    endpoints = {0: between.endpoint, 1: second.endpoint}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            joined = pool.submit(first.connect, 0, endpoints, certificate, 10.0)
            second.connect(1, endpoints, certificate, 10.0)
            joined.result()
            yield first, second, between
        finally:
            first.close(), second.close()


def test_who_records_the_connection_sees_neither_numbers_nor_names():
    values = np.arange(3000.0) + 0.125
    with two_with_somebody_between() as (first, second, between):
        for own, other in ((first, 1), (second, 0)):
            own.send(0, "sums", {other: {("weights",): values}})
        for own, other in ((first, 1), (second, 0)):
            np.testing.assert_array_equal(own.receive(0, "sums")[other]["weights",], values)
    assert len(between.heard) > 2 * values.nbytes
    assert b"weights" in b"".join(encode(0, "sums", {("weights",): values}))
    for plain in (b"weights", *(value.tobytes() for value in values)):
        assert plain not in between.heard


def test_a_number_that_is_changed_on_its_way_is_never_taken():
    with two_with_somebody_between() as (first, second, between):
        between.changes.set()
        second.send(0, "sums", {0: {("x",): np.ones(1000)}})
        first.send(0, "sums", {1: {}})
        with pytest.raises(PeersLost, match="worker 1: "):
            first.receive(0, "sums")


def test_messages_that_have_come_together_are_taken_one_by_one():
    """What TLS has decrypted ahead must not wait for more to come from the network."""
    with connected(2) as (peers, _):
        for step in range(3):
            peers[3].send(step, "sums", {0: {("x",): np.full(5, step)}})
        for step in range(3):
            peers[0].send(step, "sums", {3: {}})
            np.testing.assert_array_equal(peers[0].receive(step, "sums")[3]["x",], np.full(5, step))


def test_a_worker_that_nobody_joins_says_who_is_missing():
    alone, certificate = SocketPeers(HERE, 5.0), RunCertificate.make()
    with pytest.raises(PeersLost, match=r"workers \[1, 2\] did not connect in 0.2 s"):
        alone.connect(0, {0: alone.endpoint, 1: (HERE, 1), 2: (HERE, 1)}, certificate, 0.2)


def test_the_private_key_is_left_in_no_file_and_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    certificate = RunCertificate.make()
    certificate.client_context(), certificate.server_context()
    assert list(tmp_path.iterdir()) == []
    assert "PRIVATE" not in repr(certificate)


def test_a_worker_with_all_chips_waits_for_nobody():
    alone = NoPeers()
    alone.send(0, "sums", {})
    assert alone.receive(0, "sums") == {}
