"""Reading what the team made. Whatever is wrong, a step that is not to be had is None, and runs here."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from typing import Any

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.remote.link import FETCHERS, READERS, Crew, Link
from tritonforge.artifact.remote.record import RemoteRecord, blob_path, read_record, record_path
from tritonforge.artifact.remote.transfer import fetch_blob
from tritonforge.artifact.store import KeyRecord, LocalStore
from tritonforge.errors import CheckFailed, ForgeError


class Reading:
    """``fetched`` counts steps that were not run, ``fetched_bytes`` what came over; ``refused`` names steps."""

    def __init__(self, link: Link, local: LocalStore) -> None:
        self.fetched = 0
        self.fetched_bytes = 0
        self.refused: list[str] = []
        self._link = link
        self._local = local
        self._crew = Crew("reader", READERS)
        self._files = threading.Semaphore(FETCHERS)
        self._by_blob: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()
        self._waiting: dict[Future[Any], Any] = {}
        self._distrusted: set[str] = set()
        link.when_left(self._release)

    def find(self, key: str, facets: Mapping[str, str], name: str, *, whole: bool) -> Future[KeyRecord | None]:
        """What the team knows of a key, bound in the local store when the future is done; with ``whole`` its files too.

        None where nobody made it, what is there is not to be believed, or the store is left alone.
        """
        return self._ask(lambda: self._find(key, facets, name, whole), None)

    def bring(self, names: Mapping[str, str]) -> Future[bool]:
        """Have the files of keys here that :meth:`find` left away; false where they cannot be had."""
        wanted = dict(names)
        return self._ask(lambda: all(self._bring(key, name) for key, name in wanted.items()), False)

    def look(self, key: str, facets: Mapping[str, str], name: str) -> RemoteRecord | None:
        """What the team knows of a key, without taking any of it in: for plans. Waits no longer than a build would."""
        future: Future[RemoteRecord | None] = self._ask(lambda: self._read(key, facets, name), None)
        while not future.done():
            before = time.monotonic()
            with contextlib.suppress(TimeoutError):
                future.result(0.1)
            self.stood_idle(time.monotonic() - before)
        return future.result()

    def stood_idle(self, seconds: float) -> None:
        """The machine had nothing to do but wait for this store."""
        if not self._link.patience.stood_idle(seconds):
            self._link.leave(self._link.patience.spent)

    def _ask(self, work: Callable[[], Any], otherwise: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._guard:
            self._waiting[future] = otherwise
        if self._link.alone.is_set():
            self._release()
        else:
            self._crew.do(lambda: self._answer(future, work, otherwise))
        return future

    def _answer(self, future: Future[Any], work: Callable[[], Any], otherwise: Any) -> None:
        result = otherwise
        if not self._link.alone.is_set():
            try:
                result = work()
            except ForgeError as error:
                self._link.leave(error)
            except OSError as error:
                self._link.leave(f"what it has cannot be kept here: {error}")
            except Exception as error:  # whoever waits for an answer gets one, whatever a store holds
                self._link.leave(f"what it has makes no sense: {type(error).__name__}: {error}"[:300])
        with self._guard:
            self._waiting.pop(future, None)
        with contextlib.suppress(InvalidStateError):
            future.set_result(result)

    def _release(self) -> None:
        """Nobody waits any longer."""
        with self._guard:
            waiting, self._waiting = self._waiting, {}
        for future, otherwise in waiting.items():
            with contextlib.suppress(InvalidStateError):
                future.set_result(otherwise)

    def _find(self, key: str, facets: Mapping[str, str], name: str, whole: bool) -> KeyRecord | None:
        found = self._read(key, facets, name)
        if found is None or (whole and not self._fetch(found.artifact, found.record, name)):
            return None
        if not whole:
            self._link.patience.fetched(self._link.patience.fetching(0, seconds_of(found.record)), good=True)
        if self._link.alone.is_set():
            return None
        with self._guard:
            self.fetched += 1
        return self._local.admit(key, found.artifact, replace(found.record, away=not whole))

    def _read(self, key: str, facets: Mapping[str, str], name: str) -> RemoteRecord | None:
        """A key's record and manifest, where they can be believed."""
        data = self._link.objects().read(record_path(key))
        if data is None:
            return None
        try:
            found = read_record(data, key, facets, self._link.settings.signing_key)
        except CheckFailed as error:
            self._refuse(name, f"its record {key[:12]}", error, record_path(key))
            return None
        return None if found.artifact.digest in self._distrusted else found

    def _bring(self, key: str, name: str) -> bool:
        record = self._local.known(key)
        artifact = None if record is None else self._local.manifest(record.artifact)
        if record is None or artifact is None or record.artifact in self._distrusted:
            return False
        return self._fetch(artifact, record, name)

    def _fetch(self, artifact: Artifact, record: KeyRecord, name: str) -> bool:
        missing = [(path, entry) for path, entry in artifact.files.items() if not self._local.has(entry)]
        patience = self._link.patience
        transfer = patience.fetching(sum(entry.size for _, entry in missing), seconds_of(record))
        good = False

        def moved(count: int) -> None:
            transfer.done += count
            with self._guard:
                self.fetched_bytes += count

        try:
            for path, entry in missing:
                try:
                    with self._by_blob[entry.sha256], self._files:
                        fetch_blob(self._link.objects(), self._local, entry, moved)
                except CheckFailed as error:
                    self._distrusted.add(artifact.digest)
                    self._refuse(name, f"its file '{path}'", error, blob_path(entry.sha256))
                    return False
            good = True
        finally:
            patience.fetched(transfer, good=good)
        return True

    def _refuse(self, name: str, what: str, why: CheckFailed, path: str) -> None:
        with self._guard:
            self._link.damaged.add(path)
            self.refused.append(name)
        found = "" if why.found is None else f" ({why.found})"
        self._link.say(f"{self._link.settings.name}: {name} is refused, and runs here: {what}: {why.message}{found}")


def seconds_of(record: KeyRecord) -> float:
    """What the step took where it was made."""
    seconds = record.provenance.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0
