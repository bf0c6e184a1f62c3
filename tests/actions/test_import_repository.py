"""A repository that somebody made is taken in, and builds back to equal configs and equal bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from actions.making_repository import (
    BACKENDS,
    LAYOUTS,
    Files,
    contents,
    read_config,
    version_folders,
    write_files,
    write_repository,
)
from tritonforge.actions import import_repository as module
from tritonforge.actions import import_staging as staging
from tritonforge.actions.build import BuildOptions, PlatformOutcome, build
from tritonforge.actions.import_repository import ImportOptions, ImportOutcome, import_repository
from tritonforge.actions.workspace import open_workspace
from tritonforge.artifact import digest
from tritonforge.build.planning import plan_graph
from tritonforge.errors import EnvironmentLacks, ForgeError, SpecError, UsageError
from tritonforge.repository.release import Release
from tritonforge.spec.lock import read_lock

ONE: Files = {"config.pbtxt": 'backend: "mine"\n', "1/weights.bin": b"one"}


def built(folder: Path) -> PlatformOutcome:
    (outcome,) = build(open_workspace(folder / "forge.yaml"), BuildOptions(jobs=1)).platforms
    return outcome


def released(folder: Path) -> Release:
    outcome = built(folder)
    assert not outcome.failures, outcome.failures
    assert outcome.release is not None
    return outcome.release


def change(folder: Path, name: str, **keys: Any) -> None:
    """Say more of a model in the spec."""
    spec = yaml.safe_load((folder / "forge.yaml").read_text())
    spec["models"][name].update(keys)
    (folder / "forge.yaml").write_text(yaml.safe_dump(spec))


class Adopted:
    """A repository, what importing it said, and the release that was built from that."""

    def __init__(self, root: Path) -> None:
        self.repository = write_repository(root / "repository", LAYOUTS)
        self.folder = root / "spec"
        self.outcome: ImportOutcome = import_repository(self.repository, self.folder)
        self.lock = (self.folder / "forge.lock").read_bytes()
        self.release = released(self.folder)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("adopted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITONFORGE_HOME", str(root / "home"))
        yield Adopted(root)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_documented_layout_builds_back_to_itself(adopted: Adopted, name: str) -> None:
    before, after = adopted.repository / name, adopted.release.models_folder / name
    assert read_config(after) == read_config(before)
    assert contents(after) == contents(before)
    assert version_folders(after) == version_folders(before)


def test_a_config_keeps_its_comments_and_its_order(adopted: Adopted) -> None:
    for name, files in LAYOUTS.items():
        if "config.pbtxt" in files:
            assert (adopted.release.models_folder / name / "config.pbtxt").read_text() == files["config.pbtxt"]


def test_what_was_taken_is_told(adopted: Adopted) -> None:
    models = {model.name: model for model in adopted.outcome.models}
    assert {name: model.backend for name, model in models.items()} == BACKENDS
    assert (models["resnet_plan"].versions, models["resnet_plan"].served) == ((1, 2, 3), (1, 3))
    assert (models["inception_graphdef"].versions, models["inception_graphdef"].served) == ((3, 7, 12), (7, 12))
    assert models["resnet_plan"].variants == ("quick",)
    assert [name for name, model in models.items() if not model.config] == ["large_onnx", "simple_savedmodel"]
    assert models["tokenizer"].files == len(LAYOUTS["tokenizer"])
    assert adopted.outcome.left == () and adopted.outcome.warnings == ()


def test_a_release_has_an_entry_for_every_version_that_triton_loads(adopted: Adopted) -> None:
    entries = [(entry["folder"], entry["version"]) for entry in adopted.release.models()]
    served = [(model.name, number) for model in adopted.outcome.models for number in model.served]
    assert sorted(entries) == sorted(served)
    kinds = {entry["folder"]: (entry["kind"], entry["backend"]) for entry in adopted.release.models()}
    assert kinds["pipeline"] == ("ensemble", "ensemble")
    assert {name: backend for name, (_, backend) in kinds.items()} == BACKENDS
    assert adopted.release.is_whole()


def test_every_file_belongs_to_an_entry(adopted: Adopted) -> None:
    """What carries a release elsewhere goes by the entries: versions that are not served must come along."""
    named = {f"{entry['folder']}/{path}" for entry in adopted.release.models() for path in entry["files"]}
    there = {
        path.relative_to(adopted.release.models_folder).as_posix()
        for path in adopted.release.models_folder.rglob("*")
        if path.is_file()
    }
    assert named == there
    first, second = (entry["files"] for entry in adopted.release.models() if entry["folder"] == "resnet_plan")
    assert "1/model_sm80.plan" in first and "1/model_sm80.plan" not in second
    assert "2/model_sm80.plan" in first and "2/model_sm80.plan" in second


def test_signatures_come_from_the_configs(adopted: Adopted) -> None:
    def shapes(name: str) -> list[tuple[str, str, tuple[int, ...]]]:
        signature = adopted.release.signature(name)
        tensors = (*signature.inputs, *signature.outputs)
        return [(t.name, t.datatype, t.dims(signature.batched)) for t in tensors]

    assert shapes("tokenizer") == [("TEXT", "BYTES", (1,)), ("HINT", "BYTES", (1,)), ("input_ids", "INT64", (-1,))]
    assert adopted.release.signature("tokenizer").inputs[1].optional
    assert shapes("densenet_onnx") == [("data_0", "FP32", (3, 224, 224)), ("fc6_1", "FP32", (1000,))]
    assert shapes("llama_vllm") == [], "its backend says them when it loads"


def test_the_lock_has_every_number_before_the_first_build(adopted: Adopted) -> None:
    assert (adopted.folder / "forge.lock").read_bytes() == adopted.lock
    lock = read_lock(adopted.folder / "forge.lock")
    assert {name: sorted(numbers) for name, numbers in lock.versions["local"].items()} == {
        model.name: list(model.versions) for model in adopted.outcome.models
    }
    assert lock.pins == {"local": {"pipeline": {"decode_dali": -1, "densenet_onnx": 1}}}


def test_a_second_build_has_nothing_to_do(adopted: Adopted) -> None:
    outcome = built(adopted.folder)
    assert outcome.count("built") == 0 and not outcome.new and not outcome.flipped


def imported(tmp_path: Path, models: dict[str, Files], **options: Any) -> tuple[Path, ImportOutcome]:
    repository = write_repository(tmp_path / "repository", models)
    return tmp_path / "spec", import_repository(repository, tmp_path / "spec", ImportOptions(**options))


def test_config_in_the_spec_lies_over_the_one_that_was_given(home: Path, tmp_path: Path) -> None:
    folder, _ = imported(tmp_path, {name: LAYOUTS[name] for name in ("resnet_plan", "llama_vllm")})
    change(folder, "resnet_plan", config={"dynamic_batching": {}, "cc_model_filenames": {"7.5": None}})
    change(folder, "llama_vllm", max_batch_size=4)
    models = released(folder).models_folder
    wanted = read_config(tmp_path / "repository" / "resnet_plan")
    wanted.dynamic_batching.SetInParent()
    del wanted.cc_model_filenames["7.5"]
    assert read_config(models / "resnet_plan") == wanted
    wanted = read_config(tmp_path / "repository" / "llama_vllm")
    wanted.max_batch_size = 4
    assert read_config(models / "llama_vllm") == wanted


def test_a_new_version_is_a_new_folder(home: Path, tmp_path: Path) -> None:
    folder, _ = imported(tmp_path, {"a": ONE})
    first = released(folder)
    write_files(folder / "models" / "a", {"4/weights.bin": b"four"})
    second = released(folder)
    assert [entry["version"] for entry in first.models()] == [1]
    assert [entry["version"] for entry in second.models()] == [4], "the policy is the newest one alone"
    assert contents(second.models_folder / "a") == {"1/weights.bin": b"one", "4/weights.bin": b"four"}


def test_a_version_is_never_rewritten_under_its_number(home: Path, tmp_path: Path) -> None:
    folder, _ = imported(tmp_path, {"a": ONE})
    (folder / "models" / "a" / "1" / "weights.bin").write_bytes(b"other")
    (failure,) = built(folder).failures
    assert "version 1 of 'a' is taken" in failure.error.message
    assert failure.error.hint is not None and "next number" in failure.error.hint
    assert failure.error.place is not None and failure.error.place.line is not None


def test_a_version_without_files_outlives_version_control(home: Path, tmp_path: Path) -> None:
    """Git keeps no empty folder: the spec says the number."""
    folder, _ = imported(tmp_path, {"e": {"config.pbtxt": 'backend: "mine"', "3": None}})
    (folder / "models" / "e" / "3").rmdir()
    assert version_folders(released(folder).models_folder / "e") == {"3"}


def test_an_ensemble_whose_version_folder_got_lost_gets_one(home: Path, tmp_path: Path) -> None:
    lost: Files = {"config.pbtxt": LAYOUTS["pipeline"]["config.pbtxt"]}
    models = {"pipeline": lost, "decode_dali": LAYOUTS["decode_dali"], "densenet_onnx": LAYOUTS["densenet_onnx"]}
    folder, outcome = imported(tmp_path, models)
    assert len(outcome.warnings) == 1 and "has no version folder" in outcome.warnings[0]
    assert version_folders(released(folder).models_folder / "pipeline") == {"1"}


def test_what_is_no_model_is_left_and_told(home: Path, tmp_path: Path) -> None:
    write_files(
        tmp_path / "repository",
        {"README.md": "x", "scripts/run.sh": "x", ".git/HEAD": "x", "a/1/__pycache__/m.pyc": b"x", "a/.DS_Store": b"x"},
    )
    folder, outcome = imported(tmp_path, {"a": ONE})
    assert {item.path for item in outcome.left} == {".git", "README.md", "a/.DS_Store", "a/1/__pycache__", "scripts"}
    assert contents(released(folder).models_folder / "a") == {"1/weights.bin": b"one"}


def test_a_field_of_a_later_triton_makes_the_platform_that_ones(home: Path, tmp_path: Path) -> None:
    metrics: Files = {
        **ONE,
        "config.pbtxt": 'backend: "mine" model_metrics { metric_control { metric_identifier { family: "f" } '
        "histogram_options { buckets: [ 1 ] } } }",
    }
    folder, outcome = imported(tmp_path, {"a": metrics})
    assert open_workspace(folder / "forge.yaml").platform().triton == "24.11"
    assert "24.11" in outcome.warnings[0] and "model_metrics" in outcome.warnings[0]
    assert read_config(released(folder).models_folder / "a") == read_config(tmp_path / "repository" / "a")
    with pytest.raises(SpecError, match=r"Triton 24\.10 does not know `model_metrics`"):
        import_repository(tmp_path / "repository", tmp_path / "other", ImportOptions(triton="24.10"))


def test_a_name_that_is_not_the_folders_is_kept_and_told(home: Path, tmp_path: Path) -> None:
    folder, outcome = imported(tmp_path, {"a": {**ONE, "config.pbtxt": 'name: "b" backend: "mine"'}})
    assert 'says `name: "b"`' in outcome.warnings[0]
    result = built(folder)
    assert result.release is not None and any('`name: "b"`' in text for text in result.warnings)
    assert read_config(result.release.models_folder / "a").name == "b"
    change(folder, "a", config={"name": "a"})
    result = built(folder)
    assert result.release is not None and not result.warnings
    assert read_config(result.release.models_folder / "a").name == "a"


def test_links_inside_the_repository_are_followed_and_those_out_of_it_refused(home: Path, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "repository", {"a": ONE})
    (repository / "a" / "2").symlink_to("1")
    folder = tmp_path / "spec"
    import_repository(repository, folder)
    assert contents(released(folder).models_folder / "a") == {"1/weights.bin": b"one", "2/weights.bin": b"one"}
    (tmp_path / "secret").write_bytes(b"secret")
    (repository / "a" / "2").unlink()
    (repository / "a" / "link.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(SpecError, match="leads out of the repository"):
        import_repository(repository, tmp_path / "other")
    import_repository(repository, tmp_path / "other", ImportOptions(follow_links=True))
    assert (tmp_path / "other" / "models" / "a" / "link.bin").read_bytes() == b"secret"
    assert not (tmp_path / "other" / "models" / "a" / "link.bin").is_symlink()


@pytest.mark.parametrize(("link", "same"), [(True, True), (False, False)])
def test_large_files_are_linked_and_what_people_edit_is_not(home: Path, tmp_path: Path, link: bool, same: bool) -> None:
    big: Files = {**ONE, "1/big.bin": bytes(module.EDITED)}
    folder, outcome = imported(tmp_path, {"a": big}, link=link)
    before, after = tmp_path / "repository" / "a", folder / "models" / "a"
    if outcome.shared and not link:
        pytest.skip("this file system shares blocks")
    assert os.path.samefile(before / "1" / "big.bin", after / "1" / "big.bin") is same
    assert not os.path.samefile(before / "config.pbtxt", after / "config.pbtxt")
    assert outcome.shared == (module.EDITED if link else 0)
    assert outcome.copied == sum(file.stat().st_size for file in before.rglob("*") if file.is_file()) - outcome.shared


def test_a_build_knows_the_files_that_the_import_has_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "_RACY_NS", -1)
    folder, _ = imported(tmp_path, {"a": ONE})
    monkeypatch.setattr(digest, "digest_file", lambda path: pytest.fail(f"{path} is read again"))
    workspace = open_workspace(folder / "forge.yaml")
    plan_graph(workspace.loaded, workspace.platform(), workspace.resolver(read_lock(workspace.lock_path)))


def test_a_dry_run_writes_nothing(home: Path, tmp_path: Path) -> None:
    folder, outcome = imported(tmp_path, {"a": ONE}, dry_run=True)
    assert not folder.exists() and not outcome.written
    assert [model.name for model in outcome.models] == ["a"]


def bundle(root: Path) -> Path:
    (root / "file.tar").write_bytes(b"x")
    return root / "file.tar"


def release(root: Path) -> Path:
    return write_files(root / "release", {"release.json": "{}", "models/a/1/model.onnx": b"x"})


NO_REPOSITORY: dict[str, tuple[Any, str]] = {
    "nothing there": (lambda root: root / "nowhere", "there is no folder"),
    "a file": (bundle, "is a file"),
    "an object store": (lambda root: Path("s3://bucket/models"), "from a folder of this machine"),
    "an empty folder": (lambda root: write_files(root / "empty", {".": None}), "no Triton repository"),
    "other things": (
        lambda root: write_files(root / "other", {"src/a.py": "x", "README": "x"}),
        "no Triton repository",
    ),
    "one model": (lambda root: write_files(root / "one", ONE), "the folder of one model"),
    "a spec": (
        lambda root: write_files(root / "spec", {"forge.yaml": "x", "models/a/1/model.onnx": b"x"}),
        "forge.yaml",
    ),
    "a release": (release, "is a release of tritonforge"),
}


@pytest.mark.parametrize("what", NO_REPOSITORY)
def test_what_is_no_repository_is_refused_by_what_it_is(home: Path, tmp_path: Path, what: str) -> None:
    make, message = NO_REPOSITORY[what]
    with pytest.raises(UsageError) as caught:
        import_repository(make(tmp_path), tmp_path / "into")
    assert message in caught.value.message
    assert not (tmp_path / "into").exists()


BAD_MODELS: dict[str, tuple[str, Files, str]] = {
    "a name that no model can have": ("two words", ONE, "cannot be a model's here"),
    "a damaged config": ("a", {**ONE, "config.pbtxt": "backend: 7"}, "no valid config.pbtxt"),
    "a field that does not exist": ("a", {**ONE, "config.pbtxt": 'max_batchsize: 3 backend: "x"'}, "no field"),
    "a config that is no text": ("a", {**ONE, "config.pbtxt": b"\xff\xfe"}, "not UTF-8"),
    "a damaged variant": ("a", {**ONE, "configs/b.pbtxt": "{"}, "no valid config.pbtxt"),
    "a config past all bounds": ("a", {**ONE, "config.pbtxt": b"#" * (9 << 20)}, "larger than 8 MiB"),
    "no version": ("a", {"config.pbtxt": 'backend: "mine"', "model.bin": b"x"}, "has no version"),
    "no backend": ("a", {"1/weights.bin": b"x"}, "which backend"),
    "a half-copied version": ("a", {**ONE, "2.tmp/weights.bin": b"x"}, "reads the folder '2.tmp' as a version"),
    "version 0": ("a", {**ONE, "0/weights.bin": b"x"}, "reads the folder '0' as a version"),
    "a number past all bounds": ("a", {**ONE, "9" * 20 + "/w": b"x"}, "as a version"),
    "a policy that serves nothing": (
        "a",
        {**ONE, "config.pbtxt": 'backend: "m" version_policy { specific { versions: 2 } }'},
        "serves none of its versions",
    ),
}


@pytest.mark.parametrize("what", BAD_MODELS)
def test_a_model_that_cannot_be_taken_stops_the_import(home: Path, tmp_path: Path, what: str) -> None:
    name, files, message = BAD_MODELS[what]
    with pytest.raises(SpecError) as caught:
        imported(tmp_path, {"good": ONE, name: files})
    assert message in caught.value.message
    assert name in str(caught.value.place)
    assert not (tmp_path / "spec").exists()


def test_all_models_that_cannot_be_taken_are_named_at_once(home: Path, tmp_path: Path) -> None:
    bad: Files = {"1/weights.bin": b"x"}
    with pytest.raises(SpecError) as caught:
        imported(tmp_path, {"a": bad, "b": bad, "c": ONE})
    assert [line for line in caught.value.details if "also" in line and "/b:" in line]


@pytest.mark.parametrize("name", ["forge.yaml", "forge.lock", "models"])
def test_nothing_that_is_there_is_overwritten(home: Path, tmp_path: Path, name: str) -> None:
    write_files(tmp_path / "spec", {name: None} if name == "models" else {name: "mine"})
    with pytest.raises(UsageError, match="exists already"):
        imported(tmp_path, {"a": ONE})
    assert [path.name for path in (tmp_path / "spec").iterdir()] == [name]


def test_the_spec_does_not_go_into_the_repository(home: Path, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "repository", {"a": ONE})
    with pytest.raises(UsageError, match="in the repository itself"):
        import_repository(repository, repository / "spec")


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_import_that_is_killed_while_it_puts_things_in_place_leaves_no_half(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """A kill runs no clean-up: the next import takes away what is left, and only that."""
    repository = write_repository(tmp_path / "repository", {"a": ONE})
    folder = tmp_path / "spec"
    write_files(folder, {"notes.md": "mine"})
    done = 0
    rename = Path.rename

    def dying(self: Path, target: Path) -> Path:
        nonlocal done
        if done == after and self.parent.name == staging.STAGING:
            raise KeyboardInterrupt
        done += self.parent.name == staging.STAGING
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        patch.setattr(staging, "undo", lambda into: None)
        if after < 3:
            with pytest.raises(KeyboardInterrupt):
                import_repository(repository, folder)
        else:
            patch.setattr(staging.shutil, "rmtree", lambda *_, **__: None)
            import_repository(repository, folder)
    assert (folder / "forge.yaml").exists() == (after == 3)
    assert (folder / staging.STAGING).exists()
    if after == 3:
        # It had come to its end: what it made stays.
        with pytest.raises(UsageError, match="exists already"):
            import_repository(repository, folder)
    else:
        import_repository(repository, folder)
        assert not (folder / staging.STAGING).exists()
    assert (folder / "notes.md").read_text() == "mine"
    assert contents(released(folder).models_folder / "a") == {"1/weights.bin": b"one"}


def test_an_error_leaves_nothing_behind(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path, *, link: bool) -> bool:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(module, "share_file", full)
    with pytest.raises(EnvironmentLacks):
        imported(tmp_path, {"a": ONE})
    assert not (tmp_path / "spec").exists()


def test_two_imports_into_one_folder_do_not_mix(home: Path, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "repository", {"a": ONE})
    folder = tmp_path / "spec"
    with staging.alone(folder), pytest.raises(UsageError, match="another import"):
        import_repository(repository, folder)
    import_repository(repository, folder)


def test_errors_are_the_forges_own(home: Path, tmp_path: Path) -> None:
    """Whatever lies in a folder: an error that can be acted on, or an import."""
    repository = write_repository(tmp_path / "repository", {"a": ONE})
    os.mkfifo(repository / "a" / "pipe")
    with pytest.raises(ForgeError, match="neither a file nor a folder"):
        import_repository(repository, tmp_path / "spec")
