"""The store is listed and cleaned; what a release, a lock or the last build needs stays."""

from __future__ import annotations

import shutil

from making_onnx import batched_add, save

from cli.commands import Workshop


def test_everything_of_the_last_build_is_in_use(built: Workshop) -> None:
    listed = built.json("cache", "list")
    assert listed["bytes"] > 0
    assert {entry["step"] for entry in listed["entries"]} == {"import-onnx", "golden", "parity"}
    assert all(entry["used"] for entry in listed["entries"])


def test_gc_frees_what_nothing_needs_and_the_next_build_has_all_it_needs(workshop: Workshop) -> None:
    built = workshop  # a copy would share its records with the original, which needs the old artefacts
    save(built.folder / "good.onnx", batched_add())
    built.write("retention: {releases: 1}\nmodels:\n  good: {source: good.onnx, max_batch_size: 4}\n")
    built.build()
    old = built.current()
    save(built.folder / "good.onnx", batched_add(5.0))
    built.build()
    assert built.releases() == {built.current()}, f"{old} is pruned: one release is kept"
    foretold = built.json("cache", "gc", "--dry-run")
    assert foretold["keys"] > 0
    done = built.json("cache", "gc")
    assert {**foretold, "dry_run": False} == done
    after = built.build()
    assert (after["steps"]["built"], after["new"]) == (0, False)
    assert built.json("cache", "gc")["keys"] == 0


def test_gc_never_harms_the_current_release(built: Workshop) -> None:
    files = {path: path.read_bytes() for path in (built.folder / "build").rglob("*") if path.is_file()}
    (built.folder / "build/local/last-build.json").unlink()
    built.run("cache", "gc")
    models = {path: data for path, data in files.items() if "releases" in path.parts}
    assert {path: path.read_bytes() for path in models} == models
    assert built.build()["release"] == built.current()


def test_a_store_that_is_gone_is_made_again_and_ends_in_the_same_release(built: Workshop) -> None:
    before = built.current()
    shutil.rmtree(built.home / "store")
    after = built.build()
    assert after["release"] == before
    assert after["steps"]["built"] > 0


def test_an_empty_store_has_an_empty_list(workshop: Workshop) -> None:
    assert workshop.json("cache", "list")["entries"] == []
    assert workshop.json("cache", "gc")["keys"] == 0
