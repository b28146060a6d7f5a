"""The signals that end a study: Ctrl-C, and those with which systems begin to end a job."""

import os
import signal
import threading
from pathlib import Path
from types import CodeType, FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What LLVM calls while it compiles or loads a function must not raise: the exception is lost, and
# LLVM may crash. argparse and OmegaConf, interrupted, raise other errors, and so does whoever
# uses a module of which only a part was imported.
_MUST_NOT_RAISE = ("llvmlite/binding/", "/argparse.py", "/omegaconf/", "<frozen importlib.")
_PACKAGE = str(Path(__file__).parents[1])
_AGAIN_S = 0.05


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal as Python handles Ctrl-C, a moment later where that would be lost.

    Raises
    ------
    KeyboardInterrupt
        Unless what the signal came in must not raise.
    """
    while frame is not None and not _is_ours(frame.f_code):
        if any(path in frame.f_code.co_filename for path in _MUST_NOT_RAISE):
            again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        frame = frame.f_back
    # One that comes while another is handled is the same.
    if frame is None or frame.f_code is not interrupt.__code__:
        raise KeyboardInterrupt


def _is_ours(code: CodeType) -> bool:
    """Return whether a function is of this package: what has called it is none of its concern."""
    return code.co_filename.startswith(_PACKAGE) and code.co_name != "<module>"
