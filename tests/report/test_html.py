"""The page is whole HTML, loads nothing, runs nothing, and says the same for the same report."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tritonforge.report import Known, collect, to_html
from tritonforge.repository.release import Release

from .making import (
    WHEN,
    document,
    entry,
    gate_document,
    gate_evidence,
    known,
    parity,
    put_release,
    tensor,
    validation,
)

HOSTILE = "<script>alert(1)<!script>"
QUOTES = '"\' onmouseover=alert(1) x="<img src=http://evil.example/x>'
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """All tags with their attributes; complains about tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(release: Release, facts: Known) -> tuple[str, Page]:
    text = to_html(collect(release, facts))
    return text, Page(text)


def hostile(tmp_path: Path, text: str) -> tuple[Release, Known]:
    """A release in which everything that is a text is ``text``."""
    ends = [tensor(text, "FP32", text)]
    content = document(
        name=text,
        models=[entry(text, ends, ends, "", made_from=[])],
        server={"arguments": [text]},
    )
    content["models"][0]["made_from"] = [
        {"step": text, "key": "1" * 64, "sources": {text: text}, "tools": {text: text}}
    ]
    release = put_release(tmp_path, content)
    result = {"problems": [text], "failures": [{"case": text, "protocol": text, "reason": text}], "note": text}
    evidence = {
        text: {
            "validation": {"ok": False, "at": text, **validation(ok=False, **result)},
            "parity": {"ok": True, "at": text, **parity(1e-3, case=text, output=text, reason=text)},
        }
    }
    measured = gate_evidence(release.digest, settings={text: text}, notes=(text,), server_version=text)
    gate = {"ok": True, "at": text, **gate_document(measured), "server": {"title": text}}
    facts = known(
        release,
        evidence=evidence,
        gates={text: gate},
        asked_gates={text: text},
        proofs={text: text},
        description=text,
        descriptions={text: text},
    )
    return release, facts


def safe(parsed: Page) -> None:
    assert not parsed.all("script")
    assert {tag for tag, _ in parsed.tags}.isdisjoint(
        {"img", "iframe", "object", "embed", "link", "base", "form", "image", "use"}
    )
    for _, attributes in parsed.tags:
        assert not any(name.startswith("on") or name in ("src", "srcset", "xlink:href") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert "url(" not in (attributes.get("style") or "")


def test_the_page_is_whole_html_and_tells_all_parts(release: Release) -> None:
    text, parsed = page(release, known(release))
    assert text.lstrip().lower().startswith("<!doctype html>")
    said = "".join(parsed.text)
    for word in (
        "both",
        "net",
        "split",
        "A tiny repository.",
        "Proven",
        "SCORES",
        "case2",
        "p95",
        "1.17",
        release.digest,
    ):
        assert word in said


def test_the_page_loads_nothing_and_runs_nothing(release: Release) -> None:
    text, parsed = page(release, known(release))
    safe(parsed)
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"@import|url\(", text)
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in parsed.all("meta"))


def test_links_and_labels_lead_somewhere_and_ids_are_unique(release: Release) -> None:
    _, parsed = page(release, known(release))
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {(link["href"] or "").removeprefix("#") for link in parsed.all("a")} <= set(ids)
    for _, attributes in parsed.tags:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)


def test_tables_have_captions_and_scopes_and_pictures_have_titles(release: Release) -> None:
    _, parsed = page(release, known(release))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all("scope" in attributes for attributes in parsed.all("th"))
    assert len(parsed.all("desc")) == len(parsed.all("svg")) == 5
    assert all(attributes["role"] == "img" for attributes in parsed.all("svg"))


@pytest.mark.parametrize(
    "text", [HOSTILE, QUOTES, "{{ 7 * 191 }}{% raw %}", "</style></svg></title>", "\x00\x07\u202e"]
)
def test_hostile_texts_stay_texts(tmp_path: Path, text: str) -> None:
    # A name that is a path would lead elsewhere on disk: names here have no slash that closes a tag.
    release, facts = hostile(tmp_path, text.replace("/", "\u2215").replace("\x00", ""))
    written, parsed = page(release, facts)
    safe(parsed)
    assert "1337" not in written
    assert "<script" not in written


def test_a_closing_tag_in_a_message_closes_nothing(release: Release) -> None:
    text = "</pre></td></table></style><script>alert(1)</script>"
    bad = {"ok": False, "at": WHEN, **validation(ok=False, problems=[text], note=text)}
    (release.models_folder / "net" / "config.pbtxt").write_text(text)
    written, parsed = page(release, known(release, evidence={"net": {"validation": bad}}, description=text))
    safe(parsed)
    assert "".join(parsed.text).count(text) >= 4
    assert "<script" not in written


def test_equal_reports_give_equal_bytes(release: Release, tmp_path: Path) -> None:
    again = put_release(tmp_path / "elsewhere", document())
    assert to_html(collect(release, known(release))) == to_html(collect(again, known(again)))


@pytest.mark.parametrize(
    "replaced",
    [
        {"evidence": {}, "gates": {}, "asked_gates": {}, "history": (), "proofs": {}},
        {"gates": {}},
        {"gates": {"fast": {"ok": True, "at": WHEN}}},
    ],
)
def test_missing_evidence_is_said_to_be_missing(release: Release, replaced: dict[str, Any]) -> None:
    text, parsed = page(release, known(release, **replaced))
    safe(parsed)
    assert any(word in text for word in ("not load", "Not measured", "holds no measurement", "was loaded in a server"))


def test_long_tables_are_cut_and_say_so(release: Release) -> None:
    evidence = {"net": {"parity": {"ok": True, "at": WHEN, **parity(*(1e-6,) * 500)}}}
    text, parsed = page(release, known(release, evidence=evidence))
    assert "The first 200 of 500 rows" in text
    assert "460 smaller ones are not" in text
    safe(parsed)
