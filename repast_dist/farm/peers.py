"""Workers of a run send each other arrays over direct TCP connections.

Ray starts, watches and replaces the workers, and carries what the coordinator asks and gets. Values
that go from worker to worker several times per step take TCP connections of their own: a message
needs 0.03 to 0.1 ms there, a Ray call 0.6 to 2 ms. The connections are encrypted with TLS 1.3, both
ends prove that they hold the private key of the run's certificate before anything else is read, and
a message is a JSON header and plain numbers, never pickle.
"""

import dataclasses
import json
import math
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from repast_dist.farm.certificate import RunCertificate
from repast_dist.farm.failures import PeersLost
from repast_dist.farm.greeting import NUMBER, guests

Arrays = Mapping[Any, np.ndarray]
"""What a message holds: key -> array; keys are tuples of strings and integers."""
Endpoint = tuple[str, int]
"""(IP address, TCP port)."""

# Sizes of a message's header and of all that follows the prefix.
_PREFIX = struct.Struct("!QQ")
_ALIGNMENT = 64
# Smaller buffers are joined: every send is encrypted and passed to the kernel on its own.
_SMALL_BYTES = 16384
_BACKLOG = 1024
_DIAL_AGAIN_S = 0.2
# How often a silent machine is asked before its connection fails.
_ASKED = 4
# TLS cannot go on before the network takes or brings more.
_WOULD_BLOCK = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Peers(Protocol):
    """The connections of one worker to all other workers."""

    def send(self, step: int, part: str, messages: Mapping[int, Arrays]) -> None:
        """Begin to send every other worker its message; `receive` sends what is left.

        Parameters
        ----------
        step : int
            The training step.
        part : str
            The part of the step the values belong to; both ends must agree.
        messages : mapping
            Worker -> arrays for it, which must not change before `receive` has returned.
        """

    def receive(self, step: int, part: str) -> dict[int, Arrays]:
        """Return worker -> the arrays it sent, in ascending order of workers.

        Raises
        ------
        PeersLost
            A worker is gone, silent for too long, or elsewhere in the run.
        """

    def close(self) -> None:
        """Close all connections, which the other workers notice at once."""


class NoPeers:
    """The connections of a worker that has all chips: there are none."""

    def send(self, step: int, part: str, messages: Mapping[int, Arrays]) -> None:
        """Do nothing, since there is no other worker."""

    def receive(self, step: int, part: str) -> dict[int, Arrays]:
        """Return nothing, since there is no other worker."""
        return {}

    def close(self) -> None:
        """Do nothing, since there is no connection."""


@dataclasses.dataclass
class _Link:
    """A connection to one worker, with the data still to be sent and the data received so far."""

    socket: ssl.SSLSocket
    outgoing: list[memoryview] = dataclasses.field(default_factory=list)
    header_size: int = 0
    buffer: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(_PREFIX.size, np.uint8))
    received: int = 0

    def push(self) -> bool:
        """Send as much as possible without waiting; return whether everything is sent."""
        while self.outgoing:
            first = self.outgoing[0]
            try:
                sent = self.socket.send(first)
            except _WOULD_BLOCK:
                return False
            if sent < len(first):
                self.outgoing[0] = first[sent:]
            else:
                del self.outgoing[0]
        return True

    def pull(self) -> bool:
        """Receive what has arrived, without waiting; return whether a message is complete.

        Raises
        ------
        ConnectionError
            The other end is gone.
        """
        while True:
            while self.received < len(self.buffer):
                try:
                    count = self.socket.recv_into(memoryview(self.buffer)[self.received :])
                except _WOULD_BLOCK:
                    return False
                if count == 0:
                    raise ConnectionResetError("the connection was closed")
                self.received += count
            if self.header_size:
                return True
            self.header_size, size = _PREFIX.unpack(self.buffer)
            self.buffer, self.received = np.empty(size, np.uint8), 0

    def take(self) -> tuple[int, str, Arrays]:
        """Return the complete message and begin with the next one."""
        message = decode(self.header_size, self.buffer)
        self.buffer, self.received = np.empty(_PREFIX.size, np.uint8), 0
        self.header_size = 0
        return message


class SocketPeers:
    """The TLS connections of a worker to all other workers, one to each.

    Parameters
    ----------
    address : str
        IP address of this worker's node, where it listens for the others.
    timeout_s : float
        Longest wait for the others in `receive`, in seconds.
    link_timeout_s : float
        A connection counts as broken when the other machine has not answered for so long, in
        seconds.
    """

    def __init__(self, address: str, timeout_s: float, link_timeout_s: float = 30.0) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._link_timeout_s = link_timeout_s
        self._listener: socket.socket | None = None
        self._links: dict[int, _Link] = {}

    @property
    def endpoint(self) -> Endpoint:
        """The address and port at which this worker listens until all others are connected."""
        address, port = self._listening().getsockname()[:2]
        return address, port

    def connect(
        self,
        me: int,
        endpoints: Mapping[int, Endpoint],
        certificate: RunCertificate,
        timeout_s: float,
    ) -> None:
        """Connect to all other workers, which do the same at the same time.

        Parameters
        ----------
        me : int
            Number of this worker.
        endpoints : mapping
            Worker -> where it listens.
        certificate : RunCertificate
            Made for these connections; a process without its private key is turned away.
        timeout_s : float
            Longest wait for the others to connect, in seconds.

        Raises
        ------
        PeersLost
            Not all workers connected in time.
        """
        self.close()
        deadline = time.monotonic() + timeout_s
        client, server = certificate.client_context(), certificate.server_context()
        for worker in sorted(worker for worker in endpoints if worker < me):
            self._links[worker] = _Link(_dial(me, worker, endpoints[worker], client, timeout_s))
        awaited = {worker for worker in endpoints if worker > me}
        for worker, secured in guests(me, self._listening(), server, awaited, deadline):
            self._links[worker] = _Link(secured)
        missing = sorted(awaited - set(self._links))
        if missing:
            raise PeersLost(f"workers {missing} did not connect in {timeout_s:g} s")
        # Nobody else is let in; `endpoint` opens another port when workers have to join anew.
        self._close_listener()
        for link in self._links.values():
            link.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _break_when_unreachable(link.socket, self._link_timeout_s)
            link.socket.setblocking(False)

    def send(self, step: int, part: str, messages: Mapping[int, Arrays]) -> None:
        """See `Peers.send`."""
        for worker, arrays in messages.items():
            self._links[worker].outgoing += encode(step, part, arrays)
        for worker in messages:
            try:
                self._links[worker].push()
            except OSError as error:
                raise PeersLost(f"worker {worker}: {error}") from error

    def receive(self, step: int, part: str) -> dict[int, Arrays]:
        """See `Peers.receive`."""
        deadline = time.monotonic() + self._timeout_s
        awaited = set(self._links)
        unsent = {worker for worker, link in self._links.items() if link.outgoing}
        with selectors.DefaultSelector() as selector:
            for worker, link in self._links.items():
                # First without waiting: what TLS has decrypted already wakes no selector.
                self._serve(worker, _events(worker, awaited, unsent), awaited, unsent)
                left = _events(worker, awaited, unsent)
                if left:
                    selector.register(link.socket, left, worker)
            while selector.get_map():
                ready = selector.select(max(deadline - time.monotonic(), 0.0))
                if not ready and time.monotonic() >= deadline:
                    raise PeersLost(
                        f"step {step}: no word from workers {sorted(awaited | unsent)} "
                        f"in {self._timeout_s:g} s"
                    )
                for registered, events in ready:
                    self._serve(registered.data, events, awaited, unsent)
                    left = _events(registered.data, awaited, unsent)
                    if not left:
                        selector.unregister(registered.fileobj)
                    elif left != registered.events:
                        selector.modify(registered.fileobj, left, registered.data)
        return {worker: self._taken(worker, step, part) for worker in sorted(self._links)}

    def close(self) -> None:
        """See `Peers.close`; `connect` works again."""
        for link in self._links.values():
            link.socket.close()
        self._links = {}

    def _listening(self) -> socket.socket:
        if self._listener is None:
            family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
            self._listener = socket.create_server(
                (self._address, 0), family=family, backlog=_BACKLOG
            )
        return self._listener

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _serve(self, worker: int, events: int, awaited: set[int], unsent: set[int]) -> None:
        link = self._links[worker]
        try:
            if events & selectors.EVENT_WRITE and link.push():
                unsent.discard(worker)
            if events & selectors.EVENT_READ and link.pull():
                awaited.discard(worker)
        except OSError as error:
            raise PeersLost(f"worker {worker}: {error}") from error

    def _taken(self, worker: int, step: int, part: str) -> Arrays:
        at_step, at_part, arrays = self._links[worker].take()
        if (at_step, at_part) != (step, part):
            raise PeersLost(f"worker {worker} is at step {at_step}, {at_part}; not {step}, {part}")
        return arrays


def _break_when_unreachable(connected: socket.socket, timeout_s: float) -> None:
    """Have a connection fail whose other machine has not answered for so long.

    The kernels ask each other, so a worker that computes, or hangs, counts as there: whoever pulls
    the cable of a machine closes no connection, and nothing else would tell.
    """
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seconds = max(int(timeout_s), _ASKED)
    # Systems differ in what they let one choose.
    for name, value in (
        ("TCP_KEEPIDLE", seconds // _ASKED),
        ("TCP_KEEPINTVL", seconds // _ASKED),
        ("TCP_KEEPCNT", _ASKED),
        ("TCP_USER_TIMEOUT", 1000 * seconds),
    ):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _events(worker: int, awaited: set[int], unsent: set[int]) -> int:
    return selectors.EVENT_READ * (worker in awaited) | selectors.EVENT_WRITE * (worker in unsent)


def _dial(
    me: int, worker: int, endpoint: Endpoint, client: ssl.SSLContext, timeout_s: float
) -> ssl.SSLSocket:
    """Connect to a worker and return the encrypted connection."""
    place = f"worker {worker} at {endpoint[0]}:{endpoint[1]}"
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = max(deadline - time.monotonic(), 0.1)
        try:
            dialled = socket.create_connection(endpoint, timeout=left_s)
            found, secured = _secured(me, dialled, client, left_s)
            break
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError) as error:
            # On a busy machine the other end may have taken this one for a silent stranger.
            if time.monotonic() + _DIAL_AGAIN_S > deadline:
                raise PeersLost(f"{place}: {error}") from error
            time.sleep(_DIAL_AGAIN_S)
        except OSError as error:
            raise PeersLost(f"{place}: {error}") from error
    if found != worker:
        secured.close()
        raise PeersLost(f"{place}: worker {found} is there")
    return secured


def _secured(
    me: int, connected: socket.socket, context: ssl.SSLContext, timeout_s: float
) -> tuple[int, ssl.SSLSocket]:
    """Encrypt a connection to a worker; return the number of the one who answers and the socket.

    Raises
    ------
    OSError
        The other end is gone, silent, or does not hold the run's key; the connection is closed.
    """
    connected.settimeout(timeout_s)
    secured = context.wrap_socket(connected, do_handshake_on_connect=False)
    try:
        secured.do_handshake()
        secured.sendall(NUMBER.pack(me))
        number = secured.recv(NUMBER.size)
        if len(number) < NUMBER.size:
            raise ConnectionResetError("the connection was closed")
    except OSError:
        secured.close()
        raise
    return NUMBER.unpack(number)[0], secured


def encode(step: int, part: str, arrays: Arrays) -> list[memoryview]:
    """Return a message as buffers to be sent one by one; large contiguous arrays are not copied.

    Parameters
    ----------
    step : int
        The training step.
    part : str
        The part of the step.
    arrays : mapping
        Key -> array of at least one dimension.
    """
    values = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    shapes = [[key, array.dtype.str, array.shape] for key, array in values.items()]
    header = json.dumps([step, part, shapes]).encode()
    # The numbers begin aligned.
    header += b" " * (-len(header) % _ALIGNMENT)
    body = [memoryview(array).cast("B") for array in values.values() if array.size]
    prefix = _PREFIX.pack(len(header), len(header) + sum(len(buffer) for buffer in body))
    return _joined([memoryview(prefix + header), *body])


def _joined(buffers: list[memoryview]) -> list[memoryview]:
    """Join small buffers that follow each other."""
    runs: list[list[memoryview]] = []
    for buffer in buffers:
        if runs and max(len(buffer), len(runs[-1][-1])) < _SMALL_BYTES:
            runs[-1].append(buffer)
        else:
            runs.append([buffer])
    return [run[0] if len(run) == 1 else memoryview(b"".join(run)) for run in runs]


def decode(header_size: int, message: np.ndarray) -> tuple[int, str, Arrays]:
    """Return step, part and arrays of a message; the arrays are views of it.

    Parameters
    ----------
    header_size : int
        Bytes of its header.
    message : ndarray
        (bytes,) uint8, what `encode` made without the prefix.
    """
    step, part, shapes = json.loads(message[:header_size].tobytes())
    arrays: dict[Any, np.ndarray] = {}
    first = header_size
    for key, kind, shape in shapes:
        dtype = np.dtype(kind)
        last = first + dtype.itemsize * math.prod(shape)
        arrays[tuple(key)] = message[first:last].view(dtype).reshape(shape)
        first = last
    return step, part, arrays
