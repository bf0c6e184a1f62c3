from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritonforge.artifact.artifact import Artifact, Draft
from tritonforge.artifact.digest import digest_bytes
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import EnvironmentLacks, InternalError, SpecError, UsageError
from tritonforge.repository.release import PlatformFolder, ReleaseDraft, Stored, read_release

Make = Callable[..., ReleaseDraft]


@pytest.fixture
def network(store: LocalStore) -> Artifact:
    """An artifact with one file."""
    with store.staging() as staged:
        (staged / "model.onnx").write_bytes(b"network")
        return store.commit("ab" * 32, staged, Draft("onnx"), facets={}, provenance={})


@pytest.fixture
def make(network: Artifact) -> Make:
    """A release with one model and one ensemble; ``text`` is its config."""

    def draft(text: str = "one") -> ReleaseDraft:
        config = text.encode()
        entry = network.files["model.onnx"]
        files: dict[str, Any] = {
            "models/net/config.pbtxt": config,
            "models/net/1/model.onnx": Stored(network, "model.onnx"),
        }
        listed = {
            "config.pbtxt": {"sha256": digest_bytes(config), "size": len(config)},
            "1/model.onnx": {"sha256": entry.sha256, "size": entry.size},
        }
        models = [
            {"folder": "net", "version": 1, "artifact": network.digest, "files": listed},
            {"folder": "all", "version": 3, "artifact": "e" * 64, "files": {}},
        ]
        return ReleaseDraft({"schema": 1, "models": models, "golden": {}}, files, ("models/all/3",))

    return draft


@pytest.fixture
def folder(tmp_path: Path) -> PlatformFolder:
    return PlatformFolder(tmp_path / "build" / "local")


def releases(folder: PlatformFolder) -> list[str]:
    return sorted(path.name for path in folder.releases.iterdir())


def test_a_published_release_is_current_whole_and_read_only(
    folder: PlatformFolder, store: LocalStore, make: Make, network: Artifact
) -> None:
    draft = make()
    published = folder.publish(draft, store)
    assert (published.new, published.flipped) == (True, True)
    assert (
        published.release.digest
        == draft.digest
        == digest_bytes((published.release.folder / "release.json").read_bytes())
    )
    found = folder.current()
    assert found == published.release
    assert found.is_whole()
    assert str(folder.current_link.readlink()) == f"releases/{draft.digest}"
    assert (found.models_folder / "all" / "3").is_dir()
    model = found.models_folder / "net" / "1" / "model.onnx"
    assert model.samefile(store.blob(network.files["model.onnx"].sha256))
    for path in found.folder.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o444


def test_equal_drafts_have_equal_digests_and_publishing_again_changes_nothing(
    folder: PlatformFolder, store: LocalStore, make: Make
) -> None:
    assert make().digest == make().digest != make("two").digest
    first = folder.publish(make(), store)
    before = first.release.folder.stat()
    again = folder.publish(make(), store)
    assert (again.new, again.flipped) == (False, False)
    after = again.release.folder.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(folder.history()) == 1


def test_the_history_says_what_was_current_when(folder: PlatformFolder, store: LocalStore, make: Make) -> None:
    digests = [folder.publish(make(text), store).release.digest for text in ("one", "two", "one")]
    assert [entry["release"] for entry in folder.history()] == digests
    assert folder.publish(make("one"), store).flipped is False
    current = folder.current()
    assert current is not None and current.digest == digests[0]


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a missing file": lambda path: (path / "models" / "net" / "1" / "model.onnx").unlink(),
    "a file of another size": lambda path: replace(path / "models" / "net" / "config.pbtxt", b"another"),
    "a missing folder": lambda path: (path / "models" / "all" / "3").rmdir(),
    "a changed document": lambda path: replace(path / "release.json", b"{}"),
    "a missing document": lambda path: (path / "release.json").unlink(),
}


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_release_is_staged_again(folder: PlatformFolder, store: LocalStore, make: Make, how: str) -> None:
    release = folder.publish(make(), store).release
    DAMAGE[how](release.folder)
    assert not release.is_whole()
    again = folder.publish(make(), store)
    assert (again.new, again.flipped) == (True, False)
    assert again.release.is_whole()
    assert releases(folder) == [release.digest]


@pytest.mark.parametrize("fault", ["release.stage", "release.staged", "release.rename", "current.flip"])
def test_a_full_disk_changes_nothing(
    folder: PlatformFolder, store: LocalStore, make: Make, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    old = folder.publish(make(), store).release
    monkeypatch.setenv("TRITONFORGE_FAULT", f"{fault}:enospc")
    with pytest.raises(EnvironmentLacks, match="cannot publish the release: No space left") as raised:
        folder.publish(make("two"), store)
    assert "cache gc" in str(raised.value.hint)
    monkeypatch.delenv("TRITONFORGE_FAULT")
    assert folder.current() == old
    assert old.is_whole()
    assert not [name for name in releases(folder) if name.startswith(".")]
    assert folder.publish(make("two"), store).flipped


def test_a_place_that_cannot_be_written_is_an_environment_error(tmp_path: Path, store: LocalStore, make: Make) -> None:
    (tmp_path / "build").write_text("a file where a folder must be")
    with pytest.raises(EnvironmentLacks, match="cannot publish"):
        PlatformFolder(tmp_path / "build" / "local").publish(make(), store)


def test_no_file_leaves_the_release(folder: PlatformFolder, store: LocalStore) -> None:
    with pytest.raises(InternalError, match="leaves its folder"):
        folder.publish(ReleaseDraft({"schema": 1, "models": [], "golden": {}}, {"../x": b"x"}), store)
    assert releases(folder) == []


class TestFinding:
    def test_by_the_beginning_of_a_digest_or_as_current(
        self, folder: PlatformFolder, store: LocalStore, make: Make
    ) -> None:
        one, two = (folder.publish(make(text), store).release for text in ("one", "two"))
        assert folder.find(one.digest[:12]) == one
        assert folder.find(None) == folder.find("current")
        assert folder.find(None).digest == two.digest

    def test_what_is_not_there_or_not_one_is_a_usage_error(
        self, folder: PlatformFolder, store: LocalStore, make: Make
    ) -> None:
        with pytest.raises(UsageError, match="no release yet") as raised:
            folder.find(None)
        assert "tritonforge build" in str(raised.value.hint)
        digests = [folder.publish(make(text), store).release.digest for text in ("one", "two")]
        with pytest.raises(UsageError, match="no release begins with 'xyz'"):
            folder.find("xyz")
        with pytest.raises(UsageError, match="more than one release begins") as raised:
            folder.find("")
        assert all(digest[:12] in str(raised.value.found) for digest in digests)

    @pytest.mark.parametrize("text", ["", "[", '{"schema": 99}'])
    def test_what_is_no_release_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "release.json").write_text(text)
        with pytest.raises(SpecError):
            read_release(tmp_path)


class TestPruning:
    def publish(self, folder: PlatformFolder, store: LocalStore, make: Make, count: int) -> list[Any]:
        return [folder.publish(make(str(number)), store).release for number in range(count)]

    def test_the_newest_stay(self, folder: PlatformFolder, store: LocalStore, make: Make) -> None:
        made = self.publish(folder, store, make, 4)
        assert sorted(folder.prune(2)) == sorted(release.digest for release in made[:2])
        assert releases(folder) == sorted(release.digest for release in made[2:])
        assert folder.prune(2) == []

    def test_the_current_one_stays_however_old(self, folder: PlatformFolder, store: LocalStore, make: Make) -> None:
        made = self.publish(folder, store, make, 3)
        folder.publish(make("0"), store)  # back to the first
        folder.prune(1)
        assert releases(folder) == [made[0].digest]

    def test_what_a_process_uses_stays_until_it_ends(
        self, folder: PlatformFolder, store: LocalStore, make: Make
    ) -> None:
        made = self.publish(folder, store, make, 2)
        code = (
            "import sys; from pathlib import Path; from tritonforge.repository.release import PlatformFolder\n"
            "folder = PlatformFolder(Path(sys.argv[1]))\n"
            "with folder.hold(folder.find(sys.argv[2])):\n    print('held', flush=True); sys.stdin.read()"
        )
        user = subprocess.Popen(
            [sys.executable, "-c", code, str(folder.root), made[0].digest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert user.stdout is not None
        assert user.stdout.readline() == "held\n"
        try:
            assert folder.prune(1) == []
        finally:
            user.kill()
            user.communicate()
        assert folder.prune(1) == [made[0].digest]
        assert [path.name for path in (folder.root / "in-use").iterdir()] == [made[1].digest]

    def test_what_was_deleted_cannot_be_held(self, folder: PlatformFolder, store: LocalStore, make: Make) -> None:
        made = self.publish(folder, store, make, 2)
        folder.prune(1)
        with pytest.raises(UsageError, match="was deleted"), folder.hold(made[0]):
            pytest.fail("held what is gone")
        with folder.hold(made[1]):
            assert made[1].is_whole()

    def test_what_killed_builds_left_is_swept(self, folder: PlatformFolder, store: LocalStore, make: Make) -> None:
        folder.publish(make(), store)
        (folder.releases / ".staging-1-x").mkdir()
        os.symlink("nowhere", folder.root / ".current.1.tmp")
        folder.prune(1)
        assert not list(folder.root.rglob(".*"))


def test_releases_keep_their_bytes_when_the_store_goes(folder: PlatformFolder, store: LocalStore, make: Make) -> None:
    import shutil

    release = folder.publish(make(), store).release
    shutil.rmtree(store.root)
    assert release.is_whole()
