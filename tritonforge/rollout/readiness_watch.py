"""See whether a server calls itself unready while models are being loaded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tritonforge.triton.client import Client
from tritonforge.triton.connection import Connection


@contextmanager
def watched_readiness(connection: Connection) -> Iterator[threading.Event]:
    """Ask a server for its readiness all the time; the event is set once it was alive and not ready.

    Under Triton's default ``--strict-readiness=true`` one version that is loading, unloading or failed makes the whole
    server unready, though all others serve on: whoever balances by that takes it out of service.
    """
    seen, done = threading.Event(), threading.Event()

    def ask() -> None:
        with Client(connection) as client:
            while not done.wait(0.05):
                if not client.ready(timeout=2.0) and client.live(timeout=2.0):
                    seen.set()
                    return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield seen
    finally:
        done.set()
        asking.join(10.0)
