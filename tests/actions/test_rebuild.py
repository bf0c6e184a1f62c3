"""What a change rebuilds: the model and the ensembles over it, and nothing else; and what the plan says before."""

from __future__ import annotations

from cli.commands import Workshop
from making_onnx import batched_add, save

from actions.conftest import SPEC


def ran(outcome: dict) -> set[str]:
    return {node["id"] for node in outcome["nodes"] if node["status"] == "built"}


def state(forge: Workshop) -> dict[str, tuple[int, str, str]]:
    return {name: (e["version"], e["artifact"], e["config"]) for name, e in forge.published().items()}


def test_a_second_build_runs_nothing_and_keeps_the_release(forge: Workshop) -> None:
    before = forge.current()
    again = forge.build()
    assert (again["steps"]["built"], again["new"], again["flipped"], again["release"]) == (0, False, False, before)
    assert forge.run("build").out.startswith("local: nothing to build, 6 steps unchanged")


def test_a_changed_source_rebuilds_its_model_and_the_ensembles_over_it(forge: Workshop) -> None:
    before = state(forge)
    save(forge.folder / "plus.onnx", batched_add(3.0))
    plan = forge.json("plan")["platforms"][0]
    actions = {step["id"]: (step["action"], step["reasons"]) for step in plan["steps"]}
    assert {name: action for name, (action, _) in actions.items()} == {
        "plus/import-onnx": "run",
        "plus/golden": "wait",
        "plus/parity": "wait",
        "apart/import-onnx": "keep",
        "apart/golden": "keep",
        "apart/parity": "keep",
    }
    assert "model.onnx" in " ".join(actions["plus/import-onnx"][1])
    assert {line.split()[1] for line in plan["release"] if line.startswith("ensemble")} == {"over", "above"}

    done = forge.build()
    assert ran(done) == {"plus/import-onnx", "plus/golden", "plus/parity"}
    after = state(forge)
    assert {name for name in after if after[name] != before[name]} == {"plus", "over", "above"}
    assert {name: after[name][0] for name in after} == {"plus": 2, "over": 2, "above": 2, "apart": 1, "beside": 1}


def test_a_changed_spec_of_one_model_reruns_its_steps_alone_and_the_plan_says_which_field(forge: Workshop) -> None:
    forge.write(SPEC.replace("apart.onnx, ", "apart.onnx, golden: {seed: 5}, "))
    plan = forge.json("plan")["platforms"][0]
    changed = {step["id"]: " ".join(step["reasons"]) for step in plan["steps"] if step["action"] == "run"}
    assert set(changed) == {"apart/golden"}
    assert "seed" in changed["apart/golden"]
    before = state(forge)
    assert ran(forge.build()) == {"apart/golden", "apart/parity"}
    assert state(forge) == before, "other golden cases are another release of the same models"


def test_a_plan_changes_nothing(forge: Workshop) -> None:
    save(forge.folder / "plus.onnx", batched_add(3.0))

    def everything() -> dict[str, tuple[int, int]]:
        roots = (forge.folder, forge.home / "store")
        files = [path for root in roots for path in root.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    before = everything()
    assert forge.run("plan").code == 0
    assert everything() == before


def test_another_instance_count_is_a_new_release_of_the_same_versions_and_back_again(forge: Workshop) -> None:
    first, before = forge.current(), state(forge)
    forge.write(SPEC.replace("count: 1", "count: 2"))
    plan = forge.json("plan")["platforms"][0]
    assert {step["action"] for step in plan["steps"]} == {"keep"}
    assert "plus: config.pbtxt changes" in plan["release"]
    assert [line for line in plan["release"] if "version" in line] == []

    done = forge.build()
    assert (done["steps"]["built"], done["new"], done["before"]) == (0, True, first)
    after = state(forge)
    assert {name for name in after if after[name] != before[name]} == {"plus"}
    assert {name: entry[:2] for name, entry in after.items()} == {name: entry[:2] for name, entry in before.items()}

    forge.write(SPEC)
    back = forge.build()
    assert (back["release"], back["new"], back["flipped"]) == (first, False, True)
    assert forge.current() == first
    history = [entry["release"] for entry in forge.json("release", "list")["releases"]]
    assert history == [first, done["release"], first]


def test_a_version_number_is_never_given_to_another_artefact(forge: Workshop) -> None:
    versions = []
    for addend in (3.0, 1.0, 4.0):
        save(forge.folder / "plus.onnx", batched_add(addend))
        forge.build()
        versions.append(forge.published()["plus"]["version"])
    assert versions == [2, 1, 3], "an equal artefact keeps its number; a new one gets a number that nothing had"


def test_force_runs_the_steps_again_and_ends_in_the_same_release(forge: Workshop) -> None:
    before = forge.current()
    forced = forge.build("--force-model", "plus")
    assert ran(forced) == {"plus/import-onnx", "plus/golden", "plus/parity"}
    assert forced["release"] == before
    assert len(ran(forge.build("--force"))) == 6
    assert forge.current() == before


def test_a_failing_model_keeps_its_neighbours_and_the_old_release(forge: Workshop) -> None:
    before = forge.current()
    save(forge.folder / "apart.onnx", batched_add(8.0))
    (forge.folder / "plus.onnx").write_bytes(b"nothing")
    failed = forge.build(code=1)
    assert [item["model"] for item in failed["failures"]] == ["plus"]
    assert failed["release"] is None
    assert ran(failed) == {"apart/import-onnx", "apart/golden", "apart/parity"}
    assert forge.current() == before
    save(forge.folder / "plus.onnx", batched_add(1.0))
    healed = forge.build()
    assert ran(healed) == set()
    assert forge.published()["apart"]["version"] == 2


def test_old_releases_are_pruned_and_the_newest_ones_kept(forge: Workshop) -> None:
    made = []
    for count in range(2, 6):
        forge.write("retention: {releases: 2}\n" + SPEC.replace("count: 1", f"count: {count}"))
        made.append(forge.build()["release"])
    assert forge.releases() == set(made[-2:])
    listed = forge.json("release", "list")
    assert listed["current"] == made[-1]
    assert [entry["kept"] for entry in listed["releases"]] == [False, False, False, True, True]


def test_routers_own_the_public_name_and_the_arm_has_a_folder_of_its_own(forge: Workshop) -> None:
    forge.write(SPEC.replace("plus: {", "plus: {router: true, ").replace("beside: {", "beside: {router: true, "))
    forge.build()
    kinds = {folder: (entry["kind"], entry["name"]) for folder, entry in forge.published().items()}
    assert kinds == {
        "plus": ("router", "plus"),
        "plus--c1": ("model", "plus"),
        "apart": ("model", "apart"),
        "over": ("ensemble", "over"),
        "above": ("ensemble", "above"),
        "beside": ("router", "beside"),
        "beside--c1": ("ensemble", "beside"),
    }


def test_a_router_may_not_take_the_folder_of_another_model(forge: Workshop) -> None:
    forge.write(
        SPEC.replace("plus: {", "plus: {router: true, ")
        + "  plus--c1: {inputs: [x], outputs: [y], steps: [{model: apart}]}\n"
    )
    done = forge.run("build")
    assert done.code == 2
    assert "plus--c1" in done.err
