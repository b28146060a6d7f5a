"""Strangers who bother whatever listens: silent ones, ones that trickle, and noisy ones."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable

SILENT, TRICKLING, NOISY = ([b""], 3600.0), ([b"\x16"] * 3600, 0.1), ([b"noise" * 2000] * 20, 0.0)
"""What each kind says, and how long it waits after every word, in seconds."""


class Strangers:
    """Strangers of every kind at every port they learn of, again and again, until all is over."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.met: dict[tuple[str, int], int] = {}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Strangers":
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()

    def bother(self, endpoints: Iterable[tuple[str, int]], of_each_kind: int) -> None:
        """Bother ports that were not known before."""
        for endpoint in endpoints:
            if endpoint in self.met:
                continue
            self.met[endpoint] = 0
            for words, pause_s in (SILENT, TRICKLING, NOISY):
                for _ in range(of_each_kind):
                    self._start(self._bother, endpoint, words, pause_s)

    def _start(self, action: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=action, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _bother(self, endpoint: tuple[str, int], words: list[bytes], pause_s: float) -> None:
        while not self.over.wait(0.02):
            try:
                with socket.create_connection(endpoint, 1.0) as plain:
                    self.met[endpoint] += 1
                    with contextlib.suppress(OSError):
                        for word in words:
                            plain.sendall(word)
                            if self.over.wait(pause_s):
                                return
            except ConnectionRefusedError:
                # The door is closed; it does not open again at this port.
                return
            except OSError:
                time.sleep(0.1)
