from __future__ import annotations

import json
from pathlib import Path

import making_onnx as making
import pytest

from tritonforge.actions.build import BuildOptions, BuildOutcome, build, first_error
from tritonforge.actions.cache import collect_garbage, disk_use, list_cache
from tritonforge.actions.plan import make_plan
from tritonforge.actions.workspace import Workspace, open_workspace
from tritonforge.artifact import digest
from tritonforge.build.executor import LocalExecutor
from tritonforge.durable import folder_lock
from tritonforge.errors import EnvironmentLacks, SpecError, UsageError

SPEC = """\
apiVersion: tritonforge/v1
name: tiny
platforms: {local: {}, other: {}}
models:
  net: {source: net.onnx, max_batch_size: 4}
  label: {source: label.py, inputs: {X: "FP32[4]"}, outputs: {Y: "FP32[4]"}, description: DESCRIPTION}
retention: {releases: RETENTION}
"""
MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []  # "


class Site:
    """A spec that tests change, and what is built of it in this process (its workers are others)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        making.save(folder / "net.onnx", making.batched_add())
        self.write()

    def write(self, *, label: str = "one", description: str = "x", retention: int = 10, spec: str = SPEC) -> None:
        text = spec.replace("DESCRIPTION", description).replace("RETENTION", str(retention))
        (self.folder / "forge.yaml").write_text(text)
        (self.folder / "label.py").write_text(MODEL + label)

    @property
    def workspace(self) -> Workspace:
        return open_workspace(self.folder / "forge.yaml")

    def build(self, **options: object) -> BuildOutcome:
        return build(self.workspace, BuildOptions(jobs=1, **options))  # type: ignore[arg-type]

    def plan(self) -> dict[str, object]:
        (plan,) = make_plan(self.workspace)
        return plan.to_json()

    def actions(self) -> dict[str, str]:
        return {step["id"]: step["action"] for step in self.plan()["steps"]}  # type: ignore[attr-defined]


@pytest.fixture
def site(home: Path, tmp_path: Path) -> Site:
    return Site(tmp_path / "spec")


def only(outcome: BuildOutcome) -> dict[str, object]:
    (platform,) = outcome.platforms
    return platform.to_json()


def test_a_build_ends_with_a_release_a_lock_and_evidence(site: Site) -> None:
    made = only(site.build())
    assert not made["failures"]
    assert made["new"] and made["flipped"] and made["before"] is None
    assert made["steps"] == {"built": 4, "cached": 0, "failed": 0, "skipped": 0}
    assert (site.folder / "forge.lock").exists()
    assert len(list((site.folder / "build" / "local" / "evidence").rglob("*.json"))) == 1
    again = only(site.build())
    assert (again["release"], again["new"], again["steps"]["built"]) == (made["release"], False, 0)  # type: ignore[index]


def test_nothing_of_a_release_depends_on_where_or_when_it_was_made(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = only(site.build())["release"]
    monkeypatch.setenv("TRITONFORGE_HOME", str(tmp_path / "another"))
    assert only(Site(tmp_path / "elsewhere").build())["release"] == first


def test_a_build_that_changes_nothing_still_mends_what_was_damaged(site: Site) -> None:
    made = only(site.build())
    model = site.folder / "build" / "local" / "current" / "models" / "net" / "config.pbtxt"
    model.unlink()
    again = only(site.build())
    assert (again["release"], again["new"]) == (made["release"], True)
    assert model.exists()


def test_a_worker_is_started_for_a_file_before_it_is_read_and_none_where_nothing_is_new(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_RACY_NS", -1)  # the files of this test are as young as files can be
    started: list[tuple[str, ...]] = []
    start = LocalExecutor._start

    def note(executor: LocalExecutor, imports: tuple[str, ...] = ()) -> object:
        started.append(imports)
        return start(executor, imports)

    monkeypatch.setattr(LocalExecutor, "_start", note)
    site.build(platforms=("local",))
    assert started == [("onnx", "onnxruntime")], "one core has one worker"
    site.build(platforms=("local",))
    assert len(started) == 1
    site.write(
        spec=SPEC.replace("batch_size: 4", "batch_size: 4, config: {instance_group: [{count: 2, kind: KIND_CPU}]}")
    )
    assert only(site.build(platforms=("local",)))["new"] is True
    assert len(started) == 1, "a release of the same artefacts needs no worker"


def test_a_failing_model_keeps_the_current_release_and_the_others_work(site: Site) -> None:
    good = only(site.build())["release"]
    site.write(label="two\n    def broken(:")
    outcome = site.build()
    made = only(outcome)
    assert (made["release"], made["before"]) == (None, good)
    (failure,) = outcome.failures
    assert failure.model == "label"
    assert failure.log is not None and failure.log.exists()
    current = site.workspace.releases(site.workspace.platform()).current()
    assert current is not None and current.digest == good


def test_a_new_artefact_is_a_new_version_and_an_old_one_gets_its_old_back(site: Site) -> None:
    def version() -> int:
        (platform,) = site.build().platforms
        assert platform.release is not None
        return int(platform.release.served("label")["version"])

    numbers = []
    for label in ("one", "two", "one", "three"):
        site.write(label=label)
        numbers.append(version())
    assert numbers == [1, 2, 1, 3]


def test_platforms_are_built_each_in_its_folder(site: Site) -> None:
    outcome = site.build(platforms=("all",))
    assert [item.platform.name for item in outcome.platforms] == ["local", "other"]
    assert outcome.platforms[1].count("built") == 0, "the steps are the same"
    assert all((site.folder / "build" / name / "current").is_symlink() for name in ("local", "other"))
    with pytest.raises(UsageError, match="no platform 'othr'") as raised:
        site.build(platforms=("othr",))
    assert raised.value.hint == "did you mean 'other'?"


def test_only_known_models_can_be_forced(site: Site) -> None:
    site.build()
    assert only(site.build(force=("label",)))["steps"]["built"] == 1  # type: ignore[index]
    with pytest.raises(UsageError, match="no model 'labl'"):
        site.build(force=("labl",))


def test_who_does_not_wait_is_told_who_builds(site: Site) -> None:
    (site.folder / "build").mkdir()
    with (
        folder_lock(site.folder / "build" / ".lock"),
        pytest.raises(EnvironmentLacks, match="in use by process"),
    ):
        site.build(wait=False)


def test_the_error_that_decides_is_the_environments_then_the_specs() -> None:
    from tritonforge.actions.build import ModelFailure
    from tritonforge.errors import CheckFailed

    check, spec, lacks = CheckFailed("c"), SpecError("s"), EnvironmentLacks("e")
    assert first_error([ModelFailure("a", check), ModelFailure("b", lacks), ModelFailure("c", spec)]) is lacks
    assert first_error([ModelFailure("a", check), ModelFailure("c", spec)]) is spec


class TestPlan:
    def test_it_says_what_would_run_and_changes_nothing(self, site: Site, home: Path) -> None:
        plan = site.plan()
        assert site.actions() == {
            "net/import-onnx": "run",
            "net/golden": "wait",
            "net/parity": "wait",
            "label/import-python": "run",
        }
        assert plan["errors"] == []
        assert not (site.folder / "build").exists()
        assert not (site.folder / "forge.lock").exists()
        assert not (home / "store").exists()

    def test_after_a_build_nothing_would_run(self, site: Site) -> None:
        digest = str(only(site.build())["release"])
        assert set(site.actions().values()) == {"keep"}
        assert site.plan()["release"] == [f"the release stays {digest[:12]}"]

    def test_it_says_why(self, site: Site) -> None:
        site.build()
        site.write(label="two")
        assert site.actions()["label/import-python"] == "run"
        (reasons,) = (step["reasons"] for step in site.plan()["steps"] if step["action"] == "run")  # type: ignore[attr-defined]
        assert reasons[0].startswith("source 'model.py' changed (")

    def test_errors_of_single_models_are_in_it(self, site: Site) -> None:
        (site.folder / "label.py").unlink()
        plan = site.plan()
        assert [error["message"] for error in plan["errors"]] == ["a source is missing"]  # type: ignore[attr-defined]
        assert site.actions()["net/import-onnx"] == "run"


class TestCache:
    def test_what_is_needed_is_marked_and_stays(self, site: Site) -> None:
        site.build()
        store = site.workspace.store
        entries = list_cache(store)
        assert {entry.step for entry in entries} == {"import-onnx", "golden", "parity", "import-python"}
        assert all(entry.used for entry in entries)
        before = disk_use(store)
        assert collect_garbage(store).to_json() == {"keys": 0, "artifacts": 0, "blobs": 0, "bytes": 0, "dry_run": False}
        assert disk_use(store) == before > 0
        assert only(site.build())["steps"]["built"] == 0  # type: ignore[index]

    def test_what_no_release_lock_or_build_needs_goes(self, site: Site) -> None:
        site.build()
        for label in ("two", "three"):
            site.write(label=label, retention=1)
            site.build()
        store = site.workspace.store
        unused = [entry for entry in list_cache(store) if not entry.used]
        assert [entry.step for entry in unused] == ["import-python"] * 2
        planned = collect_garbage(store, dry_run=True)
        assert (planned.keys, planned.artifacts, planned.blobs) == (2, 2, 2)
        assert len(list_cache(store)) == 6
        assert collect_garbage(store, older_than_s=3600).keys == 0
        assert collect_garbage(store).to_json() == {**planned.to_json(), "dry_run": False}
        assert only(site.build())["steps"]["built"] == 0  # type: ignore[index]
        current = site.workspace.releases(site.workspace.platform()).current()
        assert current is not None and current.is_whole()

    def test_notes_of_what_is_to_be_sent_go_with_their_keys(self, site: Site) -> None:
        site.build()
        store = site.workspace.store
        bound = list_cache(store)[0].key
        notes = [store.unpushed / "team" / name for name in (bound, "0" * 64, f".{bound}.tmp")]
        notes[0].parent.mkdir(parents=True)
        for note in notes:
            note.touch()
        collect_garbage(store, dry_run=True)
        assert [note.exists() for note in notes] == [True, True, True]
        collect_garbage(store)
        assert [note.exists() for note in notes] == [True, False, False]

    def test_a_kept_release_keeps_its_artefacts(self, site: Site) -> None:
        site.build()
        site.write(label="two")
        site.build()
        assert collect_garbage(site.workspace.store).keys == 0

    def test_it_keeps_out_of_a_running_build(self, site: Site) -> None:
        site.build()
        store = site.workspace.store
        with store.in_use(), pytest.raises(EnvironmentLacks, match="in use by"):
            collect_garbage(store)

    def test_what_is_listed_is_plain_data(self, site: Site) -> None:
        site.build()
        assert json.loads(json.dumps([entry.to_json() for entry in list_cache(site.workspace.store)]))
