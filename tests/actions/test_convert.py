from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import making_onnx as making
import pytest
from cli.commands import Workshop
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.actions.build import BuildOptions, build
from tritonforge.actions.conversion_spec import WAYS, Wanted, conversion_spec
from tritonforge.actions.convert import ACCOUNT, Conversion, convert
from tritonforge.actions.hand_over import OUTPUT_FAULTS, hand_over_file, hand_over_folder
from tritonforge.actions.workspace import open_workspace
from tritonforge.artifact.digest import digest_file
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError, SpecError, UsageError
from tritonforge.spec.strict import Name


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    made = tmp_path / "models"
    made.mkdir()
    making.save(made / "plus.onnx", making.batched_add())
    making.save(made / "dead.onnx", making.with_dead_weight())
    return made


def run(model: Path, to: str, output: Path | None = None, **more: Any) -> Conversion:
    asked = {key: more.pop(key) for key in ("precision", "inputs", "settings", "allow_pickle") if key in more}
    return convert(Wanted(str(model), to, **asked), output, jobs=1, **more)


def statuses(done: Conversion) -> dict[str, str]:
    return {item.node.step: item.status for item in (done.results or {}).values()}


def test_the_result_and_its_account_stand_beside_the_model(folder: Path) -> None:
    done = run(folder / "plus.onnx", "openvino")
    assert done.output == folder / "plus-openvino"
    assert sorted(path.name for path in done.output.iterdir()) == [ACCOUNT, "model.bin", "model.xml"]
    account = json.loads((done.output / ACCOUNT).read_bytes())
    assert account == done.account
    assert account["comparison"]["max_abs"] == 0
    assert account["comparison"]["cases"] >= 3
    assert account["comparison"]["outputs"].keys() == {"y"}
    assert "onnxruntime" in account["comparison"]["reference"]
    assert "openvino" in account["comparison"]["runner"]
    assert account["steps"][-2]["tools"].keys() >= {"openvino"}
    assert account["model"]["files"]["model.onnx"]["sha256"] == digest_file(folder / "plus.onnx")
    for name, entry in account["files"].items():
        assert digest_file(done.output / name) == entry["sha256"]


def test_nothing_is_done_twice_and_a_build_shares_the_work(folder: Path) -> None:
    first = run(folder / "plus.onnx", "openvino")
    assert set(statuses(first).values()) == {"built"}
    again = run(folder / "plus.onnx", "openvino", folder / "other")
    assert set(statuses(again).values()) == {"cached"}
    assert again.account == first.account
    (folder / "forge.yaml").write_text(
        "apiVersion: tritonforge/v1\nname: tiny\nmodels: {whatever: {source: plus.onnx, backend: openvino}}\n"
    )
    (built,) = build(open_workspace(folder), BuildOptions(jobs=1)).platforms
    assert built.release is not None
    assert {item.status for item in built.results.values()} == {"cached"}


def test_a_single_file_gets_its_account_beside_it(folder: Path) -> None:
    done = run(folder / "dead.onnx", "onnx", folder / "out" / "lean.onnx", settings=["simplify=true"])
    assert sorted(path.name for path in done.output.parent.iterdir()) == ["lean.onnx", "lean.onnx.json"]
    assert json.loads((folder / "out" / "lean.onnx.json").read_bytes()) == done.account
    assert done.output.stat().st_size < (folder / "dead.onnx").stat().st_size
    with pytest.raises(UsageError, match="there already"):
        run(folder / "dead.onnx", "onnx", done.output, settings=["simplify=true"])
    run(folder / "dead.onnx", "onnx", done.output, settings=["simplify=true"], force=True)
    done.output.unlink()
    beside = folder / "out" / "lean.onnx.json"
    beside.write_text('{"schema": "somebody\'s"}')
    with pytest.raises(UsageError, match="there already"):
        run(folder / "dead.onnx", "onnx", done.output, settings=["simplify=true"])
    assert beside.read_text() == '{"schema": "somebody\'s"}'


def test_what_is_handed_over_is_the_users_to_change(folder: Path, home: Path) -> None:
    done = run(folder / "plus.onnx", "openvino")
    for file in done.output.iterdir():
        assert file.stat().st_nlink == 1
        assert file.stat().st_mode & 0o777 == 0o644
        file.write_bytes(b"changed")
    store = LocalStore(home / "store")
    assert done.account is not None
    artifact = store.artifact(done.account["artifact"])
    assert artifact is not None and store.damaged(artifact) == []


def test_a_taken_place_is_replaced_only_by_force_and_only_what_a_conversion_wrote(folder: Path) -> None:
    done = run(folder / "plus.onnx", "openvino")
    (done.output / "model.xml").write_text("old")
    with pytest.raises(UsageError, match="there already"):
        run(folder / "plus.onnx", "openvino")
    assert (done.output / "model.xml").read_text() == "old"
    run(folder / "plus.onnx", "openvino", force=True)
    assert (done.output / "model.xml").read_text() != "old"
    somebodys = folder / "precious"
    somebodys.mkdir()
    (somebodys / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match="somebody's"):
        run(folder / "plus.onnx", "openvino", somebodys, force=True)
    assert (somebodys / "thesis.txt").read_text() == "years"
    (folder / "link").symlink_to(somebodys)
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        run(folder / "plus.onnx", "openvino", folder / "link", force=True)


def test_the_output_never_changes_its_own_source(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "plus.onnx").rename(inner / "plus.onnx")
    for output in (inner / "out", inner, inner / "plus.onnx", folder):
        with pytest.raises(UsageError):
            run(inner, "openvino", output, force=True)
    assert [path.name for path in inner.iterdir()] == ["plus.onnx"]


def test_a_dry_run_says_what_would_run_and_writes_nothing(folder: Path, home: Path) -> None:
    before = sorted(folder.iterdir())
    done = run(folder / "plus.onnx", "openvino", dry_run=True)
    assert [(item.node.step, item.action) for item in done.steps] == [
        ("import-onnx", "run"),
        ("golden", "wait"),
        ("onnx-to-openvino", "wait"),
        ("parity", "wait"),
    ]
    assert done.to_json()["dry_run"] is True
    assert sorted(folder.iterdir()) == before
    assert not (home / "store").exists()


def test_a_result_that_is_too_far_from_its_source_is_not_handed_over(folder: Path) -> None:
    making.save(folder / "encoder.onnx", making.encoder_block())
    with pytest.raises(CheckFailed, match="does not compute what its source computes") as failed:
        run(folder / "encoder.onnx", "onnx", precision="int8", settings=["tolerance.abs=0.000001"])
    assert "--set KEY=VALUE" in str(failed.value)
    assert "tritonforge replay" in str(failed.value)
    assert not (folder / "encoder-onnx").exists()
    done = run(folder / "encoder.onnx", "onnx", precision="int8")
    assert done.account is not None
    assert done.account["comparison"]["tolerance"] == {"cosine": 0.98}
    assert 0.98 < done.account["comparison"]["outputs"]["y"]["cosine"] < 1


@pytest.mark.parametrize(
    ("model", "to", "more", "message"),
    [
        ("plus.onnx", "onnx", {}, "takes already: nothing would be converted"),
        ("plus.onnx", "tensorrt", {}, "cannot be converted to 'tensorrt'"),
        ("plus.onnx", "openvno", {}, "did you mean 'openvino'"),
        ("plus.onnx", "pytorch", {}, "cannot be made from a source in onnx"),
        ("plus.onnx", "onnx", {"precision": "fp16"}, "nothing here makes fp16"),
        ("plus.onnx", "onnx", {"precision": "fp17"}, "there is no precision 'fp17'"),
        ("plus.onnx", "onnx", {"inputs": ["x"]}, "describes no input"),
        ("plus.onnx", "onnx", {"inputs": ["x=FP32[3]", "x=FP32[4]"]}, "described twice"),
        ("plus.onnx", "onnx", {"inputs": ["x=FP33[3]"]}, "unknown data type"),
        ("plus.onnx", "onnx", {"settings": ["simplify"]}, "sets nothing"),
        ("plus.onnx", "onnx", {"settings": ["simplfy=true"]}, "did you mean 'simplify'"),
        ("plus.onnx", "onnx", {"settings": ["simplify={"]}, "no YAML"),
        ("plus.onnx", "onnx", {"settings": ["source=/etc/passwd"]}, "that is MODEL"),
        ("plus.onnx", "onnx", {"settings": ["variants={a: {}, b: {simplify: true}}"]}, "one result"),
        ("missing.onnx", "onnx", {"precision": "int8"}, "missing"),
        ("plus.onnx", "openvino", {"output": "x.onnx"}, "no result of a conversion to openvino"),
    ],
)
def test_what_does_not_go_together_is_one_error_before_anything_runs(
    folder: Path, home: Path, model: str, to: str, more: dict[str, Any], message: str
) -> None:
    output = more.pop("output", None)
    with pytest.raises((UsageError, SpecError)) as refused:
        run(folder / model, to, None if output is None else folder / output, **more)
    assert message in str(refused.value)
    assert not (home / "store" / "keys").exists()


def test_a_part_of_a_model_stands_for_the_whole(folder: Path) -> None:
    saved = folder / "saved"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"x")
    assert Wanted(str(saved / "saved_model.pb"), "onnx").path == saved
    (folder / "model.ckpt.index").write_bytes(b"x")
    assert Wanted(str(folder / "model.ckpt"), "onnx").path == folder / "model.ckpt.index"
    assert Wanted("hub:acme/little@main", "onnx").path is None
    assert Wanted("hub:acme/little@main", "onnx").name == "little"
    assert Wanted("torchvision:resnet18", "onnx").name == "resnet18"


@given(st.text(min_size=1, max_size=40).filter(lambda text: "/" not in text and "\0" not in text))
def test_any_file_name_gives_a_model_a_name(text: str) -> None:
    from pydantic import TypeAdapter

    made = Wanted(f"/nowhere/{text}.onnx", "onnx").name
    assert TypeAdapter(Name).validate_python(made) == made


@given(
    st.lists(st.sampled_from(["onnxruntime", "golden", "x", "optimize"]), min_size=1, max_size=4),
    st.sampled_from(["true", "3", "[1, 2]", "text", "{a: 1}", "!!python/object:os.system {}", "&a [*a]", ": :"]),
)
def test_any_setting_is_a_spec_or_one_error(parts: list[str], value: str) -> None:
    try:
        conversion_spec(Wanted("/nowhere/m.onnx", "onnx", settings=(f"{'.'.join(parts)}={value}",)))
    except ForgeError as error:
        assert error.exit_code == 2


@pytest.mark.parametrize("to", WAYS)
def test_every_way_is_a_spec(to: str) -> None:
    (model,) = conversion_spec(Wanted("/nowhere/m.pt", to)).spec.models.values()
    assert model.backend == WAYS[to]["backend"]


def test_a_hand_over_that_fails_leaves_nothing_and_the_next_one_sweeps_what_the_dead_left(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def half(folder: Path) -> None:
        (folder / "a").write_text("a")
        raise CheckFailed("no more")

    with pytest.raises(CheckFailed):
        hand_over_folder(target, half, force=False, mark="a")
    assert list(tmp_path.iterdir()) == []
    dead, alive = tmp_path / ".out.99999999.aa.staging", tmp_path / f".out.{os.getpid()}.bb.staging"
    for left in (dead, alive):
        left.mkdir()
    hand_over_folder(target, lambda folder: (folder / "a").write_text("1") and None, force=False, mark="a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "out"]
    with pytest.raises(UsageError, match="there already"):
        hand_over_folder(target, lambda folder: (folder / "a").write_text("2") and None, force=False, mark="a")
    assert (target / "a").read_text() == "1"
    hand_over_folder(target, lambda folder: (folder / "a").write_text("2") and None, force=True, mark="a")
    assert (target / "a").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "out"]


FOLDERS = [name for name in OUTPUT_FAULTS if ".folder." in name]
FILES = [name for name in OUTPUT_FAULTS if ".file." in name]


def test_every_step_of_a_hand_over_is_gone_through() -> None:
    assert [*FOLDERS, *FILES] == list(OUTPUT_FAULTS)


def faulty(point: str, work: Callable[[], object], *, how: str = "kill") -> int:
    """Do it in a process of its own with a fault at ``point``; its exit status."""
    child = os.fork()
    if child == 0:
        os.environ["TRITONFORGE_FAULT"] = f"{point}:{how}"
        try:
            work()
            os._exit(9)
        except EnvironmentLacks:
            os._exit(3)
        finally:
            os._exit(8)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("before", ["nothing", "another"])
@pytest.mark.parametrize("point", OUTPUT_FAULTS)
def test_a_kill_leaves_the_old_output_or_the_new_one_and_the_next_run_ends_well(
    folder: Path, point: str, before: str
) -> None:
    single = point in FILES
    target = folder / "out" / ("lean.onnx" if single else "lean")
    model = target if single else target / "model.onnx"
    asked: dict[str, Any] = {"settings": ["simplify=true"]}
    old = None
    if before == "another":
        run(folder / "plus.onnx", "onnx", target, settings=["onnxruntime.optimize=basic"])
        old = model.read_bytes()
    new = run(folder / "dead.onnx", "onnx", folder / "apart", **asked)
    wanted = (new.output / "model.onnx").read_bytes()
    assert wanted != old
    code = faulty(point, lambda: run(folder / "dead.onnx", "onnx", target, force=old is not None, **asked))
    assert code == -signal.SIGKILL
    assert (model.read_bytes() if model.exists() else None) in (old, wanted)
    if not single and target.exists():
        account = json.loads((target / ACCOUNT).read_bytes())
        assert account["files"]["model.onnx"]["sha256"] == digest_file(model)
    run(folder / "dead.onnx", "onnx", target, force=model.exists(), **asked)
    assert model.read_bytes() == wanted
    assert not list(target.parent.glob(".*"))


@pytest.mark.parametrize("point", ["output.folder.staged", "output.file.staged"])
def test_a_full_disk_leaves_nothing_new(folder: Path, point: str) -> None:
    target = folder / "out" / ("lean.onnx" if point in FILES else "lean")
    asked: dict[str, Any] = {"settings": ["simplify=true"]}
    assert faulty(point, lambda: run(folder / "dead.onnx", "onnx", target, **asked), how="enospc") == 3
    assert not target.exists()
    run(folder / "dead.onnx", "onnx", target, **asked)
    assert target.exists()


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"

    def slow(staged: Path) -> None:
        staged.write_text("new")
        target.write_text("somebody's")

    with pytest.raises(UsageError, match="there already"):
        hand_over_file(target, slow, force=False)
    assert target.read_text() == "somebody's"
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_the_command_prints_one_object_and_works_from_anywhere(workshop: Workshop) -> None:
    making.save(workshop.folder / "plus.onnx", making.batched_add())
    done = workshop.json("convert", "plus.onnx", "--to", "OpenVINO", "-j", "1")
    assert done["account"]["backend"] == "openvino"
    assert done["output"] == str(workshop.folder / "plus-openvino")
    said = workshop.run("convert", "plus.onnx", "--to", "openvino", "--force")
    assert (said.code, said.err) == (0, "")
    assert "plus-openvino: openvino, 2 files" in said.out
    refused = workshop.json("convert", "plus.onnx", "--to", "openvino", code=2)
    assert refused["message"] == "the output is there already"
    assert list((workshop.home / "conversions").glob("*/logs")) == []


@pytest.mark.slow
def test_a_pickle_is_loaded_only_where_that_is_said(workshop: Workshop) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(3, 2), workshop.folder / "whole.pth")
    asked = ("convert", "whole.pth", "--to", "pytorch", "--input", "x=FP32[3]")
    refused = workshop.run(*asked)
    assert refused.code == 1
    assert "on the command line: --allow-pickle" in refused.err
    assert not (workshop.folder / "whole-pytorch").exists()
    done = workshop.json(*asked, "--allow-pickle")
    assert done["account"]["format"] == "torchscript"
    assert done["account"]["comparison"]["max_abs"] < 1e-6


@pytest.mark.slow
def test_sources_of_every_framework_become_onnx(workshop: Workshop) -> None:
    pytest.importorskip("tensorflow")
    torch = pytest.importorskip("torch")
    import making_huggingface
    import making_tensorflow

    torch.jit.script(torch.nn.Linear(3, 2)).save(workshop.folder / "script.pt")
    making_tensorflow.mlp().save(workshop.folder / "dense.keras")
    making_tensorflow.two_signatures(workshop.folder / "saved")
    making_huggingface.network(workshop.folder, "bert")
    for model, kind, more in (
        ("script.pt", "torchscript", ("--input", "x=FP32[3]")),
        ("dense.keras", "keras", ()),
        ("saved/saved_model.pb", "savedmodel", ("--set", "tensorflow.signature=encode")),
        ("bert", "huggingface", ("--set", "golden.axes.sequence=[1, 8]")),
    ):
        done = workshop.json("convert", model, "--to", "onnx", *more)
        assert done["account"]["model"]["kind"] == kind
        assert done["account"]["comparison"]["max_abs"] < 1e-4
        assert (Path(done["output"]) / "model.onnx").is_file()
