"""What has to be whole, or put back, whatever comes and whenever: a crash, a full disk, an interrupt."""

import glob
import os
import signal
import threading
from contextlib import contextmanager

import psutil


def write_whole(path, content):
    """Write bytes to a file that at any moment, also after a crash, is whole: as it was, or as it is to be.

    They are on the disk before the name is. What a process that was killed here has left is removed. OSError names
    the file.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*-*"):
        writer = left.name.rpartition(".")[2].partition("-")[0]
        if writer.isdigit() and not psutil.pid_exists(int(writer)):
            left.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        if os.name == "posix":  # the name itself; elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror}; make room or choose another place"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def surely(put_back, act=lambda: None):
    """act(), and then, whatever comes and whenever, put_back(): twice where an interrupt may have fallen into it."""
    try:
        try:
            return act()
        finally:
            put_back()
    except KeyboardInterrupt:
        put_back()
        raise


@contextmanager
def held():
    """Inside, a first interrupt (Ctrl-C, the stop button) is only noted, in the list that is given; a second one comes.

    Who looks at the list between two steps ends with both whole, and torch's own state too: an interrupt within
    torch.func makes it fail from then on.
    """
    asked: list[int] = []

    def note(number, frame):
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    here = usual and threading.current_thread() is threading.main_thread()  # no other thread may, nor is interrupted

    def give_back():
        if here:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        try:
            if here:
                signal.signal(signal.SIGINT, note)
            yield asked
        finally:
            give_back()
    finally:
        give_back()  # the second one may have come in between
