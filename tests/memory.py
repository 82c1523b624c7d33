"""Memory of this process without the pages of files, which the system drops and reads again as it likes."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")
KNOWN = STATUS.exists() and "RssAnon:" in STATUS.read_text()


def anonymous():
    """Bytes."""
    return int(STATUS.read_text().split("RssAnon:")[1].split()[0]) * 2**10


@contextmanager
def watched():
    """A list that holds, at the end, by how many bytes the largest of many looks exceeds the first."""
    before, most, done, out = anonymous(), [0], threading.Event(), []

    def look():
        while not done.wait(0.001):
            most.append(max(most.pop(), anonymous()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield out
    finally:
        done.set()
        thread.join()
        out.append(max(*most, anonymous()) - before)
