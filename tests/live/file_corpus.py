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

EACH = 2
"""Files of one suffix that are taken."""
LARGEST = 4 << 20
FILES_SEEN = 60_000


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
        "a.gif": b"GIF89a\x10\x00\x10\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x00\x00\x00\x00\x00,\x00\x00\x00\x00\x10"
        b"\x00\x10\x00\x00\x02\x0e\x84\x8f\xa9\xcb\xed\x0f\xa3\x9c\xb4\xda\x8b\xb3>\x05\x00;",
        "a.bmp": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54 + 3072, 0, 0, 54, 40, 32, 32, 1, 24, 0, 3072, 0, 0, 0, 0)
        + bytes(3072),
        **{name: source.encode() for name, source in _SOURCES.items()},
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


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(96)) for _ in range(32))
    head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


_SOURCES = {
    "a.c": '#include <stdio.h>\n#include <stdlib.h>\n\nint main(int argc, char **argv) {\n    printf("%d\\n", argc);\n    return EXIT_SUCCESS;\n}\n',
    "a.rs": 'use std::collections::HashMap;\n\nfn main() {\n    let mut seen: HashMap<String, u32> = HashMap::new();\n    *seen.entry("a".into()).or_insert(0) += 1;\n    println!("{:?}", seen);\n}\n',
    "a.go": 'package main\n\nimport (\n\t"fmt"\n\t"os"\n)\n\nfunc main() {\n\tfmt.Println(len(os.Args))\n}\n',
    "a.java": "package org.example;\n\nimport java.util.List;\n\npublic final class Main {\n    public static void main(String[] args) {\n        System.out.println(List.of(args));\n    }\n}\n",
    "a.js": "'use strict';\nconst fs = require('fs');\n\nmodule.exports = async function read(path) {\n  const text = await fs.promises.readFile(path, 'utf8');\n  return JSON.parse(text);\n};\n",
    "a.css": "body { margin: 0; font-family: sans-serif; }\n.card > h1:hover { color: #336699; padding: 1em 2em; }\n@media print { nav { display: none; } }\n",
    "a.html": '<!DOCTYPE html>\n<html lang="en">\n<head><title>A page</title><meta charset="utf-8"></head>\n<body><h1>Hello</h1><p>Text</p></body>\n</html>\n',
    "a.xml": '<?xml version="1.0" encoding="UTF-8"?>\n<catalog>\n  <item id="1"><name>One</name></item>\n  <item id="2"><name>Two</name></item>\n</catalog>\n',
    "a.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20" viewBox="0 0 20 20">\n  <path d="M0 0L20 20" stroke="black"/>\n  <circle cx="5" cy="5" r="3"/>\n</svg>\n',
    "a.sh": '#!/bin/bash\nset -euo pipefail\nfor file in "$@"; do\n  if [ -f "$file" ]; then\n    wc -l "$file"\n  fi\ndone\n',
    "a.sql": "CREATE TABLE users (id SERIAL PRIMARY KEY, name VARCHAR(80) NOT NULL);\nINSERT INTO users (name) VALUES ('a'), ('b');\nSELECT name, COUNT(*) FROM users GROUP BY name ORDER BY 2 DESC;\n",
    "a.toml": '[project]\nname = "example"\nversion = "1.0"\ndependencies = ["click>=8", "numpy"]\n\n[tool.ruff]\nline-length = 100\n',
    "a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  labels:\n    app: example\ndata:\n  key: value\n",
    "a.md": "# Title\n\nSome *text* with a [link](https://example.org).\n\n- one\n- two\n\n```python\nprint(1)\n```\n",
    "Dockerfile": 'FROM debian:12\nRUN apt-get update && apt-get install -y curl\nCOPY . /app\nWORKDIR /app\nENTRYPOINT ["/app/run"]\n',
    "Makefile": "CC := gcc\nOBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\n\nall: program\n\nprogram: $(OBJECTS)\n\t$(CC) -o $@ $^\n\n.PHONY: clean\nclean:\n\trm -f $(OBJECTS)\n",
    "a.diff": "diff --git a/a.txt b/a.txt\nindex 83db48f..bf269f4 100644\n--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three\n",
    "a.ics": "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//example//EN\nBEGIN:VEVENT\nUID:1@example.org\nDTSTART:20240102T100000Z\nSUMMARY:Meeting\nEND:VEVENT\nEND:VCALENDAR\n",
    "a.tex": "\\documentclass{article}\n\\usepackage{amsmath}\n\\begin{document}\n\\section{One}\nText with $x^2$.\n\\end{document}\n",
    "a.lua": "local M = {}\n\nfunction M.add(a, b)\n  if a == nil then\n    return b\n  end\n  return a + b\nend\n\nreturn M\n",
    "a.rb": "require 'json'\n\nmodule Example\n  class Reader\n    attr_reader :path\n\n    def initialize(path)\n      @path = path\n    end\n  end\nend\n",
    "a.php": "<?php\nnamespace Example;\n\nclass Reader {\n    public function __construct(private string $path) {}\n}\n\necho (new Reader('a'))->path;\n",
}
