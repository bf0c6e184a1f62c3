"""Real files of many kinds: what the machine has, and what the standard library can make where it has few."""

from __future__ import annotations

import bz2
import configparser
import csv
import gzip
import io
import json
import lzma
import pickle
import plistlib
import sqlite3
import struct
import sys
import sysconfig
import tarfile
import wave
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from email.message import EmailMessage
from itertools import islice
from pathlib import Path

import yaml

EACH = 2
"""Files of one suffix that are taken."""
LARGEST = 4 << 20
FILES_SEEN = 60_000
SOURCES = Path(__file__).with_name("file_sources.yaml")


def gather() -> dict[str, bytes]:
    """Contents by a name for messages: found files first, made ones under ``made:``."""
    return {**dict(_found()), **{f"made:{name}": data for name, data in _made().items()}}


def largest_library() -> Path:
    """A file of several megabytes that every machine with this environment has."""
    root = Path(sysconfig.get_path("purelib"))
    return max((path for path in root.rglob("*.so*") if path.is_file()), key=lambda path: path.stat().st_size)


def _found() -> Iterator[tuple[str, bytes]]:
    paths = sysconfig.get_paths()
    roots = [paths["stdlib"], paths["purelib"], "/usr/share", "/etc", "/usr/lib", "/usr/bin", sys.base_prefix]
    taken: Counter[str] = Counter()
    for root in dict.fromkeys(roots):
        for path in islice(Path(root).rglob("*"), FILES_SEEN):
            suffix = path.suffix.lower() or path.parent.name
            try:
                if taken[suffix] >= EACH or path.is_symlink() or not path.is_file():
                    continue
                if not 0 < path.stat().st_size <= LARGEST:
                    continue
                data = path.read_bytes()
            except OSError:
                continue
            taken[suffix] += 1
            if len(suffix) <= 8 and sum(taken.values()) <= 400:
                yield str(path), data


def _made() -> dict[str, bytes]:
    text = b"The quick brown fox jumps over the lazy dog, and then it sleeps.\n" * 40
    record = {"name": "tritonforge", "values": list(range(50)), "nested": {"a": None, "b": True}}
    return {
        "empty": b"",
        "short": b"hello",
        "spaces": b" " * 5000,
        "zeros": bytes(3000),
        "one-byte": b"\xff",
        "utf-16": text.decode().encode("utf-16"),
        "text.txt": text,
        "a.zip": _zip({"a.txt": text, "b.txt": text}),
        "a.jar": _zip(
            {"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\n\n", "A.class": b"\xca\xfe\xba\xbe" + bytes(90)}
        ),
        "a.gz": gzip.compress(text, mtime=0),
        "a.bz2": bz2.compress(text),
        "a.xz": lzma.compress(text),
        "a.zlib": zlib.compress(text),
        "a.tar": _tar("w", text),
        "a.wav": _wav(),
        "a.sqlite": _sqlite(),
        "a.pickle": pickle.dumps(record, protocol=4),
        "a.ini": _ini(),
        "a.csv": _csv(),
        "a.tsv": _csv("\t"),
        "a.json": json.dumps(record, indent=2).encode(),
        "a.jsonl": b"".join(json.dumps({"id": index, "text": "a line"}).encode() + b"\n" for index in range(50)),
        "a.plist": plistlib.dumps(record | {"nested": {}}),
        "binary.plist": plistlib.dumps(record | {"nested": {}}, fmt=plistlib.FMT_BINARY),
        "a.eml": _mail(),
        "a.png": _png(),
        "a.gif": b"GIF89a"
        + bytes.fromhex("1000100080000000 0000ffffff2c0000 0000100010000002 0e848fa9cbed0fa3 9cb4da8bb33e0500 3b"),
        "a.bmp": _bmp(),
        **{name: source.encode() for name, source in yaml.safe_load(SOURCES.read_text()).items()},
    }


def _zip(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _tar(mode: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def _wav() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        sound.writeframes(bytes(range(256)) * 20)
    return stream.getvalue()


def _sqlite() -> bytes:
    with sqlite3.connect(":memory:") as base:
        base.execute("create table t (id integer primary key, text)")
        base.executemany("insert into t (text) values (?)", [("row",)] * 100)
        return base.serialize()


def _ini() -> bytes:
    parser = configparser.ConfigParser()
    parser.read_dict({f"section{index}": {"host": "example.org", "port": "80", "path": "/srv"} for index in range(8)})
    stream = io.StringIO()
    parser.write(stream)
    return stream.getvalue().encode()


def _csv(delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    rows = csv.writer(stream, delimiter=delimiter)
    rows.writerow(["id", "name", "price", "date"])
    rows.writerows([[index, f"item {index}", index * 1.5, "2024-01-02"] for index in range(60)])
    return stream.getvalue().encode()


def _mail() -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.org", "b@example.org", "Hello"
    mail["Message-ID"], mail["Date"] = "<1@example.org>", "Tue, 02 Jan 2024 10:00:00 +0000"
    mail.set_content("Dear B,\n\nthis is a letter.\n\nYours, A\n")
    return bytes(mail)


def _bmp() -> bytes:
    pixels = bytes(32 * 32 * 3)
    head = struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54)
    return b"BM" + head + struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, 24, 0, len(pixels), 0, 0, 0, 0) + pixels


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(96)) for _ in range(32))
    head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
