"""Brings a release from an object store to a folder, whole or not at all; runs in the init container `fetch`.

    fetch.py --url URL --to FOLDER --sha256 HEX [--checksums PATH] [--parallel N] [--endpoint URL] [--region NAME]

URL is `https://…`, or `s3://bucket/prefix` (at AWS, or at --endpoint). --sha256 is that of `release.json`, the
release's digest, which names all files with their own; with --checksums it is that of a file of `sha256sum` lines. A
file that was fetched in part is continued; one that is not what it should be is an error; nothing counts until it is
all there.

From the environment: BEARER_TOKEN (sent over https only), URL_QUERY (appended to every address, such as Azure's SAS),
and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN for s3 (without them requests are anonymous).

It runs in any image with Python 3.8.
"""

import argparse
import concurrent.futures
import datetime
import fcntl
import hashlib
import hmac
import http.client
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

BLOCK = 1 << 20
MANIFEST_LIMIT = 64 << 20
ATTEMPTS = 8
TIMEOUT = 60


class Refused(Exception):
    """Trying again would not help."""


class Store:
    """Where files are asked for."""

    def __init__(self, url, endpoint, region):
        self.region = region
        self.token = os.environ.get("BEARER_TOKEN", "")
        self.query = os.environ.get("URL_QUERY", "").lstrip("?")
        self.key = os.environ.get("AWS_ACCESS_KEY_ID", "")
        self.secret = os.environ.get("AWS_SECRET_ACCESS_KEY", "")
        self.session = os.environ.get("AWS_SESSION_TOKEN", "")
        parts = urllib.parse.urlsplit(url)
        self.signed = parts.scheme == "s3"
        if self.signed:
            path = parts.path.strip("/")
            if endpoint:
                self.base = "%s/%s/%s" % (endpoint.rstrip("/"), parts.netloc, path)
            elif "." in parts.netloc:  # the certificate covers one label only
                self.base = "https://s3.%s.amazonaws.com/%s/%s" % (region, parts.netloc, path)
            else:
                self.base = "https://%s.s3.%s.amazonaws.com/%s" % (parts.netloc, region, path)
        elif parts.scheme in ("http", "https"):
            self.base = url
        else:
            raise Refused("the URL begins with neither https:// nor s3://")
        if self.token and not self.base.startswith("https://"):
            raise Refused("BEARER_TOKEN is sent over https only")

    def request(self, path, start):
        url = "%s/%s" % (self.base.rstrip("/"), urllib.parse.quote(path, safe="/-_.~"))
        if self.query:
            url += "?" + self.query
        request = urllib.request.Request(url)
        if start:
            request.add_header("Range", "bytes=%d-" % start)
        # Unredirected: another host must not get what proves who we are.
        if self.signed and self.key:
            for name, value in self.signature(url).items():
                request.add_unredirected_header(name, value)
        elif self.token:
            request.add_unredirected_header("Authorization", "Bearer " + self.token)
        return request

    def signature(self, url, now=None):
        """Headers of AWS Signature Version 4 for a GET without a body."""
        now = now or datetime.datetime.now(datetime.timezone.utc)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        parts = urllib.parse.urlsplit(url)
        empty = hashlib.sha256(b"").hexdigest()
        headers = {"host": parts.netloc, "x-amz-content-sha256": empty, "x-amz-date": stamp}
        if self.session:
            headers["x-amz-security-token"] = self.session
        names = ";".join(sorted(headers))
        lines = ["%s:%s" % (name, headers[name]) for name in sorted(headers)]
        canonical = "\n".join(["GET", parts.path, parts.query, *lines, "", names, empty])
        scope = "%s/%s/s3/aws4_request" % (day, self.region)
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ("AWS4" + self.secret).encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        proof = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        del headers["host"]  # the connection's own
        headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
            self.key,
            scope,
            names,
            proof,
        )
        return headers


def attempt_all(path, once):
    """`once` until it succeeds. It adds the bytes that it got to `progress`; one that got some counts as the first."""
    failed = 0
    while True:
        before = time.monotonic()
        progress = [0]
        try:
            return once(progress)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in (408, 425, 429) and error.code < 500:
                raise Refused("%s: the store answered %d %s" % (path, error.code, error.reason)) from None
            reason = "the store answered %d" % error.code
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error))
        failed = 1 if progress[0] else failed + 1
        if failed >= ATTEMPTS:
            raise Refused("%s: %s, %d times in a row" % (path, reason, failed))
        say("%s: %s; trying again" % (path, reason))
        time.sleep(max(0.0, min(30.0, PAUSE * 2.0**failed) - (time.monotonic() - before)))


PAUSE = float(os.environ.get("TRITONFORGE_FETCH_PAUSE", "0.5"))
printing = threading.Lock()


def say(text):
    with printing:
        print(text, flush=True)


def read_manifest(store, path, sha256):
    def once(progress):
        with urllib.request.urlopen(store.request(path, 0), timeout=TIMEOUT) as answer:
            return answer.read(MANIFEST_LIMIT + 1)

    data = attempt_all(path, once)
    if len(data) > MANIFEST_LIMIT:
        raise Refused("%s is larger than %d MiB" % (path, MANIFEST_LIMIT >> 20))
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise Refused("%s is not what was asked for: its sha256 is %s, not %s" % (path, found, sha256))
    return data


def of_release(data):
    """The files and the folders that `release.json` names, below the release: ({path: (sha256, size)}, [path])."""
    files, folders = {}, []
    for entry in json.loads(data)["models"]:
        folder = "models/" + entry["folder"]
        folders.append("%s/%s" % (folder, entry["version"]))  # an ensemble's is empty
        for path, content in entry["files"].items():
            files["%s/%s" % (folder, path)] = (content["sha256"], content["size"])
    return files, folders


def of_checksums(data):
    files = {}
    for line in data.decode().splitlines():
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if match:
            path = match.group(2)
            path = path[2:] if path.startswith("./") else path
            files[path if path.startswith("models/") else "models/" + path] = (match.group(1), None)
        elif line.strip():
            raise Refused("the checksums have a line that sha256sum does not write: %r" % line[:80])
    return files, []


def inside(root, path):
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise Refused("a path leaves its folder: %r" % path)
    return os.path.join(root, *parts)


def digest(file):
    sha = hashlib.sha256()
    with open(file, "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            sha.update(block)
    return sha.hexdigest()


def fetch(store, path, file, sha256, size, partial):
    """Bring one file, unless it is there; gives the bytes that travelled."""
    if os.path.exists(file) and (size is None or os.path.getsize(file) == size) and digest(file) == sha256:
        return 0
    moved = [0]

    def once(progress):
        start = os.path.getsize(partial) if os.path.exists(partial) else 0
        if size is not None and start and start >= size:
            return  # the digest tells whether it is the file
        try:
            answer = urllib.request.urlopen(store.request(path, start), timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not start:
                raise
            error.close()  # nothing is behind what is here: whole, or not a part of it; the digest tells
            return
        with answer, open(partial, "ab" if answer.status == 206 else "wb") as stream:
            announced = answer.headers.get("Content-Length")
            got = 0
            while True:
                block = answer.read(BLOCK)
                if not block:
                    break
                stream.write(block)
                got += len(block)
                progress[0] += len(block)
                moved[0] += len(block)
            stream.flush()
            os.fsync(stream.fileno())
            if announced is not None and got < int(announced):
                raise http.client.IncompleteRead(b"", int(announced) - got)

    for again in (True, False):
        attempt_all(path, once)
        found = digest(partial)
        if found == sha256:
            break
        os.unlink(partial)
        if not again:
            raise Refused("%s is not what the release names: its sha256 is %s, not %s" % (path, found, sha256))
        say("%s is not what the release names; fetching all of it again" % path)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    os.chmod(partial, 0o444)
    os.replace(partial, file)
    return moved[0]


def is_complete(marker, sha256, files):
    """Whether all of it was checked here before, and its files still have their sizes."""
    try:
        with open(marker) as stream:
            return stream.read() == sha256 and all(size in (None, os.path.getsize(file)) for file, size in files)
    except FileNotFoundError:
        return False


def bring(store, folder, manifest, sha256, named_by, parallel):
    marker = os.path.join(folder, ".complete")
    files, folders = named_by(read_manifest(store, manifest, sha256))
    places = {path: inside(folder, path) for path in files}
    if is_complete(marker, sha256, [(places[path], size) for path, (_, size) in files.items()]):
        say("all %d files are there" % len(files))
        return
    partials = os.path.join(folder, ".partial")
    os.makedirs(partials, exist_ok=True)
    for path in folders:
        os.makedirs(inside(folder, path), exist_ok=True)
    started, jobs = time.monotonic(), {}
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        for path, (wanted, size) in sorted(files.items()):
            # Lines of sha256sum are relative to their file.
            beside = os.path.dirname(manifest)
            remote = path if named_by is of_release else (beside + "/" + path[len("models/") :]).lstrip("/")
            # Its path is in it: two files of one content must not be written to at the same time.
            partial = os.path.join(partials, hashlib.sha256(path.encode()).hexdigest()[:16] + "-" + wanted)
            jobs[pool.submit(fetch, store, remote, places[path], wanted, size, partial)] = path
        try:
            moved = sum(job.result() for job in concurrent.futures.as_completed(jobs))
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
    with open(marker + ".tmp", "w") as stream:
        stream.write(sha256)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(marker + ".tmp", marker)
    took = time.monotonic() - started
    say("%d files are there and checked; %.1f MB travelled in %.1f s" % (len(files), moved / 1e6, took))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--checksums", default="")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--region", default="us-east-1")
    given = parser.parse_args()
    try:
        store = Store(given.url, given.endpoint, given.region)
        os.makedirs(given.to, exist_ok=True)
        # Pods that share a cache take turns; the second finds everything there.
        with open(os.path.join(given.to, ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            named_by = of_checksums if given.checksums else of_release
            bring(store, given.to, given.checksums or "release.json", given.sha256, named_by, given.parallel)
    except Refused as error:
        sys.exit("fetch: %s" % error)
    except OSError as error:
        sys.exit("fetch: %s: %s" % (error.filename or given.to, error.strerror or error))
    except (ValueError, KeyError, TypeError) as error:
        sys.exit("fetch: the release's document is not one: %r" % error)


if __name__ == "__main__":
    main()
