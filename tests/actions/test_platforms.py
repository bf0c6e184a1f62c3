"""One spec for this machine and for a GPU server with an older Triton: each gets the fields that it can take."""

from __future__ import annotations

from cli.commands import Workshop
from making_onnx import batched_add, save

PLATFORMS = """\
platforms:
  local: {}
  gpu: {triton: "24.05", processor: x86_64, gpu: sm_80}
"""
METRICS = "model_metrics: {metric_control: [{metric_identifier: {family: f}, histogram_options: {buckets: [1.0]}}]}"


def spec(config: str = "", platforms: str = PLATFORMS) -> str:
    return f"{platforms}models:\n  plus:\n    source: plus.onnx\n    max_batch_size: 4\n{config}"


def made(workshop: Workshop, text: str) -> Workshop:
    save(workshop.folder / "plus.onnx", batched_add())
    workshop.write(text)
    return workshop


def pbtxt(workshop: Workshop, platform: str) -> str:
    return (workshop.folder / "build" / platform / "current/models/plus/config.pbtxt").read_text()


def test_both_platforms_get_a_release_with_their_own_instance_kind(workshop: Workshop) -> None:
    made(workshop, spec())
    both = workshop.json("build", "--platform", "all")["platforms"]
    assert [(item["platform"], item["new"]) for item in both] == [("local", True), ("gpu", True)]
    assert both[1]["steps"]["built"] == 0, "the same model is imported once"
    kinds = {
        name: {kind for kind in ("KIND_CPU", "KIND_GPU") if kind in pbtxt(workshop, name)} for name in ("local", "gpu")
    }
    assert kinds == {"local": {"KIND_CPU"}, "gpu": {"KIND_GPU"}}


def test_a_field_that_the_older_triton_does_not_know_is_refused_there_alone(workshop: Workshop) -> None:
    made(workshop, spec(f"    config: {{{METRICS}}}\n", PLATFORMS.replace("local: {}", 'local: {triton: "25.02"}')))
    done = workshop.run("build", "--platform", "all")
    assert done.code == 2
    assert done.err.count("error: ") == 1
    for text in ("forge.yaml:10", "models.plus.config.model_metrics", "24.05", "hint: "):
        assert text in done.err
    assert workshop.current("gpu") is None
    assert "model_metrics" in pbtxt(workshop, "local")


def test_the_same_field_is_taken_by_a_newer_triton(workshop: Workshop) -> None:
    made(workshop, spec(f"    config: {{{METRICS}}}\n", PLATFORMS.replace("24.05", "25.02")))
    workshop.json("build", "--platform", "gpu")
    assert "model_metrics" in pbtxt(workshop, "gpu")


def test_a_field_can_be_for_one_platform_alone(workshop: Workshop) -> None:
    text = PLATFORMS.replace("24.05", "25.02")
    made(workshop, spec(f"    platforms: {{gpu: {{config: {{{METRICS}}}, max_batch_size: 2}}}}\n", text))
    workshop.json("build", "--platform", "all")
    assert {name: "model_metrics" in pbtxt(workshop, name) for name in ("local", "gpu")} == {
        "local": False,
        "gpu": True,
    }
    assert "max_batch_size: 2" in pbtxt(workshop, "gpu")


def test_only_leaves_a_model_out_of_the_other_platforms(workshop: Workshop) -> None:
    made(workshop, spec() + "  extra: {source: plus.onnx, only: [gpu]}\n")
    workshop.json("build", "--platform", "all")
    assert set(workshop.published("local")) == {"plus"}
    assert set(workshop.published("gpu")) == {"plus", "extra"}


def test_a_release_says_that_nothing_has_proven_it_yet(workshop: Workshop) -> None:
    made(workshop, spec() + "ensembles:\n  over: {inputs: [x], outputs: [y], steps: [{model: plus}]}\n")
    workshop.json("build", "--platform", "all")
    for platform in ("local", "gpu"):
        shown = workshop.json("release", "show", "--platform", platform)
        assert shown["current"] is True
        assert shown["proven_on"] == {"plus": "its source, offline; no server yet", "over": "nothing yet"}


def test_config_show_says_where_each_field_came_from(workshop: Workshop) -> None:
    made(workshop, spec("    config: {parameters: {intra_op_thread_count: {string_value: '2'}}}\n"))
    before = workshop.run("config", "show", "plus")
    assert (before.code, "run `tritonforge build` first" in before.err) == (2, True)
    workshop.build()
    shown = workshop.json("config", "show", "plus")
    sources = {item["path"]: item["from"] for item in shown["fields"]}
    places = {item["path"]: item["place"] for item in shown["fields"]}
    ours = next(path for path in sources if "intra_op_thread_count" in path)
    assert sources[ours] == "the model in the spec"
    assert "forge.yaml:10" in places[ours]
    assert len(set(sources.values())) >= 3, "the artefact, the template, the spec"
    assert workshop.run("config", "show", "plus", "--text").out == pbtxt(workshop, "local")
