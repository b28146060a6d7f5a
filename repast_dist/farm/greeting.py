"""Lets the workers of a run in, and turns away whoever does not hold the run's key.

All who connect are greeted at the same time, each within one deadline, so a stranger who says
nothing, or a byte now and then, keeps nobody waiting.
"""

import contextlib
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Iterator

# Longest time that a stranger is listened to.
_HANDSHAKE_S = 5.0
# Strangers that are listened to at the same time; the oldest has to go for one more.
_GREETED = 1024
# What each end says first: its number.
NUMBER = struct.Struct("!Q")


class _Guest:
    """A connection whose other end has not shown yet who it is."""

    def __init__(self, me: int, accepted: socket.socket, context: ssl.SSLContext) -> None:
        accepted.setblocking(False)
        self.socket = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        self.deadline = time.monotonic() + _HANDSHAKE_S
        self._unsaid = NUMBER.pack(me)
        self._greeted = False

    def go_on(self) -> int | None:
        """Do what can be done without waiting; return the number of the worker once it said it.

        Raises
        ------
        OSError
            The other end is gone or does not hold the run's key; TLS that has to wait for the
            network is a special case of it.
        """
        if not self._greeted:
            self.socket.do_handshake()
            self._greeted = True
        # In TLS 1.3 the client learns only from what follows that it was accepted.
        while self._unsaid:
            self._unsaid = self._unsaid[self.socket.send(self._unsaid) :]
        said = self.socket.recv(NUMBER.size)
        if len(said) < NUMBER.size:
            raise ConnectionResetError("the connection was closed")
        number: int = NUMBER.unpack(said)[0]
        return number


def guests(
    me: int, listener: socket.socket, context: ssl.SSLContext, awaited: set[int], deadline: float
) -> Iterator[tuple[int, ssl.SSLSocket]]:
    """Yield (worker, connection) for the awaited workers in the order they come, until a deadline.

    The deadline is a time of `time.monotonic`.
    """
    missing = set(awaited)
    inside: dict[_Guest, None] = {}
    listener.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        try:
            while missing:
                left_s = min([deadline, *(guest.deadline for guest in inside)]) - time.monotonic()
                ready = [(key.fileobj, key.data) for key, _ in selector.select(max(left_s, 0.0))]
                now = time.monotonic()
                if now >= deadline:
                    return
                for _, guest in ready:
                    if guest is None:
                        found = _enter(me, listener, context)
                        if found is not None:
                            inside[found] = None
                            selector.register(found.socket, selectors.EVENT_READ, found)
                        continue
                    try:
                        number = guest.go_on()
                    except ssl.SSLWantWriteError:
                        selector.modify(guest.socket, selectors.EVENT_WRITE, guest)
                        continue
                    except ssl.SSLWantReadError:
                        selector.modify(guest.socket, selectors.EVENT_READ, guest)
                        continue
                    except OSError:
                        number = None
                    selector.unregister(guest.socket)
                    del inside[guest]
                    if number in missing:
                        missing.remove(number)
                        yield number, guest.socket
                    else:
                        guest.socket.close()
                late = [guest for guest in inside if guest.deadline <= now]
                for guest in late or list(inside)[: max(len(inside) - _GREETED, 0)]:
                    selector.unregister(guest.socket)
                    guest.socket.close()
                    del inside[guest]
        finally:
            for guest in inside:
                guest.socket.close()


def _enter(me: int, listener: socket.socket, context: ssl.SSLContext) -> _Guest | None:
    with contextlib.suppress(OSError):
        accepted, _ = listener.accept()
        try:
            return _Guest(me, accepted, context)
        except OSError:
            accepted.close()
    return None
