"""What has to be whole, or put back, whatever comes and whenever: a crash, a full disk, an interrupt."""

import glob
import hashlib
import os
import signal
import threading

import psutil
from tqdm.auto import tqdm

from course_utils.device import unattended


def write_whole(path, content):
    """Write bytes to a file that is whole at any moment, also after a crash: as it was, or as it is to be.

    They are on the disk before the name is; what a writer that was killed has left goes. OSError names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if left.suffix[1:].isdigit() and not psutil.pid_exists(int(left.suffix[1:])):
            left.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        if os.name == "posix":  # the name itself; elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}; make room, or choose another") from error
    finally:
        beside.unlink(missing_ok=True)


def sealed(content, name=""):
    """Bytes under a line with their hash, and that of a name: `opened` gives them back."""
    return b"# sha256: %s\n" % hashlib.sha256(name.encode() + content).hexdigest().encode() + content


def opened(found, name=""):
    """The bytes that were `sealed` by that name; None for what is not as it was then."""
    content = found.partition(b"\n")[2]
    return content if found == sealed(content, name) else None


def surely(put_back, act, *arguments):
    """act(…), and then, whatever comes and whenever, put_back(): twice where an interrupt may have fallen into it."""
    try:
        try:
            return act(*arguments)
        finally:
            put_back()
    except KeyboardInterrupt:
        put_back()
        raise


def held(act):
    """act(asked), while a first interrupt (Ctrl-C, the stop button) is only noted, in that list; a second one comes.

    What looks at the list between two steps ends with both whole, and torch's own state too: an interrupt within
    torch.func makes it fail from then on.
    """
    asked: list[int] = []

    def note(number, frame):
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    def noting():
        signal.signal(signal.SIGINT, note)
        return act(asked)

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():  # no other thread is interrupted
        return act(asked)
    return surely(lambda: signal.signal(signal.SIGINT, signal.default_int_handler), noting)


def drive(rule, runner, progress):
    """A run to its end, with a bar; in a sweep in silence, and an interrupt ends the sweep, too."""

    def run(asked):
        history, alone = next(runner), unattended.get()
        with tqdm(total=history.planned, desc=rule.title, unit="batch", disable=not progress, mininterval=0.3) as bar:
            try:
                for history in runner:
                    bar.update(history.steps - bar.n)
                    if history.steps == 1 and history.note and not alone:
                        print(history.note)
                    bar.set_postfix_str(history.latest, refresh=False)
                    if asked:
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                runner.close()
                if alone:
                    raise
            bar.set_postfix_str(history.latest)
        if history.status != "done" and not alone:
            print(f"{rule.title}: {history.message}")
        return history

    return held(run)
