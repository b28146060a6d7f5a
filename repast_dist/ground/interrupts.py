"""The signals that end a study: Ctrl-C, and those with which systems begin to end a job."""

import os
import signal
import threading
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What LLVM calls while it compiles or loads a function must not raise: the exception is lost, and
# LLVM may crash. argparse, interrupted, raises another error.
_MUST_NOT_RAISE = ("llvmlite/binding/", "/argparse.py")
_AGAIN_S = 0.05


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal as Python handles Ctrl-C, a moment later where that would be lost.

    Raises
    ------
    KeyboardInterrupt
        Unless what the signal came in must not raise.
    """
    while frame is not None:
        if any(path in frame.f_code.co_filename for path in _MUST_NOT_RAISE):
            again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt
