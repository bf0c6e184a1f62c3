"""Models that nothing converts: files as they are, any backend, the config as given; everything else as for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from actions.making_repository import contents, read_config, write_files
from tritonforge.actions.build import BuildOptions, PlatformOutcome, build
from tritonforge.actions.workspace import open_workspace
from tritonforge.errors import ForgeError, SpecError
from tritonforge.repository.release import Release

WriteSpec = Callable[..., Path]
LLAMA = {"llama/model.json": '{"model": "m"}', "llama/sub/weights.bin": b"\x01"}
TREES = """\
backend: "fil"
input { name: "input__0" data_type: TYPE_FP32 dims: 4 }
output { name: "output__0" data_type: TYPE_FP32 dims: 1 }
max_batch_size: 16
"""


def built(spec: Path, platform: str | None = None) -> PlatformOutcome:
    options = BuildOptions(platforms=() if platform is None else (platform,), jobs=1)
    (outcome,) = build(open_workspace(spec), options).platforms
    return outcome


def released(spec: Path, platform: str | None = None) -> Release:
    outcome = built(spec, platform)
    assert not outcome.failures, outcome.failures
    assert outcome.release is not None
    return outcome.release


def refused(spec: Path) -> ForgeError:
    """The one error of a spec, while it is read or while it is built."""
    try:
        outcome = built(spec)
    except ForgeError as error:
        return error
    (failure,) = outcome.failures
    return failure.error


def test_an_artefact_folder_and_settings_are_a_model(home: Path, write_spec: WriteSpec) -> None:
    spec = write_spec(
        "models:\n  llama: {source: llama/, format: passthrough, backend: vllm,\n"
        "    config: {instance_group: [{kind: KIND_MODEL, count: 1}], model_transaction_policy: {decoupled: true}}}\n"
    )
    write_files(spec.parent, LLAMA)
    release = released(spec)
    (entry,) = release.models()
    assert (entry["backend"], entry["version"], entry["kind"], entry["decoupled"]) == ("vllm", 1, "model", True)
    assert contents(release.models_folder / "llama") == {
        "1/model.json": b'{"model": "m"}',
        "1/sub/weights.bin": b"\x01",
    }
    config = read_config(release.models_folder / "llama")
    assert (config.backend, config.instance_group[0].kind, config.name) == ("vllm", 3, "")
    assert release.signature("llama").inputs == (), "nothing is guessed: its backend says them"


def test_a_file_is_an_artefact_too_and_its_config_may_lie_anywhere(home: Path, write_spec: WriteSpec) -> None:
    spec = write_spec(
        "models:\n  trees: {source: fraud.json, format: passthrough, base: settings/fil.pbtxt, version: 7,\n"
        "    files: {extra/note: note}, folder_files: {labels.txt: note, configs/big.pbtxt: settings/fil.pbtxt}}\n"
    )
    write_files(spec.parent, {"fraud.json": "{}", "settings/fil.pbtxt": TREES, "note": "n"})
    release = released(spec)
    folder = release.models_folder / "trees"
    assert (folder / "config.pbtxt").read_text() == TREES
    assert set(contents(folder)) == {"7/fraud.json", "7/extra/note", "labels.txt", "configs/big.pbtxt"}
    signature = release.signature("trees")
    assert [(t.name, t.datatype, t.dims(True)) for t in signature.inputs] == [("input__0", "FP32", (4,))]
    assert signature.batched


def test_inputs_and_outputs_can_be_said_in_the_spec(home: Path, write_spec: WriteSpec) -> None:
    spec = write_spec(
        "models:\n  pipe: {source: m.dali, format: passthrough, backend: dali, max_batch_size: 8,\n"
        '    inputs: {RAW: {type: "UINT8[-1]", ragged: true}, N: {type: "INT32[]", optional: true}},\n'
        '    outputs: {IMAGE: "FP32[3,224,224]"}}\n'
    )
    write_files(spec.parent, {"m.dali": b"x"})
    config = read_config(released(spec).models_folder / "pipe")
    raw, number = config.input
    assert (raw.name, list(raw.dims), raw.allow_ragged_batch) == ("RAW", [-1], True)
    assert (list(number.dims), number.HasField("reshape"), number.optional) == ([1], True, True)
    assert list(config.output[0].dims) == [3, 224, 224] and config.max_batch_size == 8


def test_a_changed_artefact_gets_the_next_number_and_a_changed_config_does_not(
    home: Path, write_spec: WriteSpec
) -> None:
    text = "models:\n  trees: {source: fraud.json, format: passthrough, base: fil.pbtxt}\n"
    spec = write_spec(text)
    write_files(spec.parent, {"fraud.json": "{}", "fil.pbtxt": TREES})
    first = released(spec)
    write_files(spec.parent, {"fil.pbtxt": TREES.replace("16", "32")})
    second = released(spec)
    write_files(spec.parent, {"fraud.json": "{ }"})
    third = released(spec)
    assert [release.models()[0]["version"] for release in (first, second, third)] == [1, 1, 2]
    assert first.digest != second.digest
    assert read_config(second.models_folder / "trees").max_batch_size == 32


def test_a_platform_says_what_differs_on_it(home: Path, write_spec: WriteSpec) -> None:
    spec = write_spec(
        "platforms:\n  local: {}\n  gpu: {gpu: sm_80, config: {optimization: {priority: PRIORITY_MAX},\n"
        "    max_batch_size: 2}}\n"
        "models:\n  trees: {source: fraud.json, format: passthrough, base: fil.pbtxt,\n"
        "    platforms: {gpu: {config: {instance_group: [{kind: KIND_GPU, count: 2}]}}}}\n"
    )
    write_files(spec.parent, {"fraud.json": "{}", "fil.pbtxt": TREES})
    assert (released(spec).models_folder / "trees" / "config.pbtxt").read_text() == TREES
    config = read_config(released(spec, "gpu").models_folder / "trees")
    assert (config.instance_group[0].count, config.optimization.priority) == (2, 1)
    assert config.max_batch_size == 16, "the platform's lies under what the model says"


def test_an_ensemble_of_the_spec_is_wired_over_them(home: Path, write_spec: WriteSpec) -> None:
    spec = write_spec(
        "models:\n  trees: {source: fraud.json, format: passthrough, base: fil.pbtxt}\n"
        "ensembles:\n  judge: {inputs: [input__0], outputs: [verdict],\n"
        "    steps: [{model: trees, outputs: {output__0: verdict}}]}\n"
    )
    write_files(spec.parent, {"fraud.json": "{}", "fil.pbtxt": TREES})
    config = read_config(released(spec).models_folder / "judge")
    assert config.max_batch_size == 16
    (step,) = config.ensemble_scheduling.step
    assert (step.model_name, step.model_version) == ("trees", 1)
    assert list(config.input[0].dims) == [4]


def test_an_ensemble_needs_to_know_what_goes_in_and_out(home: Path, write_spec: WriteSpec) -> None:
    spec = write_spec(
        "models:\n  llama: {source: llama/, format: passthrough, backend: vllm}\n"
        "ensembles:\n  chat: {inputs: [text], outputs: [answer], steps: [{model: llama}]}\n"
    )
    write_files(spec.parent, LLAMA)
    error = refused(spec)
    assert "leaves its inputs and outputs to the server" in error.message
    assert error.hint is not None and "`inputs:`" in error.hint


def test_a_router_stands_before_them_and_their_name_follows(home: Path, write_spec: WriteSpec) -> None:
    spec = write_spec("models:\n  trees: {source: fraud.json, format: passthrough, base: fil.pbtxt, router: true}\n")
    write_files(spec.parent, {"fraud.json": "{}", "fil.pbtxt": 'name: "trees"\n' + TREES})
    release = released(spec)
    assert {entry["folder"]: entry["kind"] for entry in release.models()} == {"trees": "router", "trees--c1": "model"}
    assert read_config(release.models_folder / "trees--c1").name == "trees--c1"


def test_golden_cases_are_packed_by_the_configs_signature(home: Path, write_spec: WriteSpec) -> None:
    spec = write_spec(
        "models:\n  trees: {source: fraud.json, format: passthrough, base: fil.pbtxt,\n"
        "    golden: {cases: [case.json], ranges: {input__0: {low: 0, high: 1}}}}\n"
    )
    case = '{"inputs": {"input__0": [1, 2, 3, 4]}, "outputs": {"output__0": [0.5]}}'
    write_files(spec.parent, {"fraud.json": "{}", "fil.pbtxt": TREES, "case.json": case})
    folder = released(spec).golden_folder("trees")
    assert {path.name for path in folder.iterdir()} == {"files", "inputs"}


HEAD = "models:\n  m: {source: m/, format: passthrough, backend: mine"
REFUSED = {
    "a key that converts": (f"{HEAD}, simplify: true}}\n", "nothing reads `simplify`"),
    "a house style": (f"{HEAD}, template: latency}}\n", "nothing reads `template`"),
    "versions of the forge": (f"{HEAD}, versions: {{a: {{}}}}}}\n", "nothing reads `versions`"),
    "a house style on a platform": (
        f"{HEAD}, platforms: {{local: {{template: edge}}}}}}\n",
        "nothing reads `template`",
    ),
    "a base for what is converted": ("models: {m: {source: m.onnx, base: config.pbtxt}}\n", "nothing reads `base`"),
    "files beside a folder": (
        "models: {m: {source: f/, format: triton, files: {a: m.onnx}}}\n",
        "nothing reads `files`",
    ),
    "a model's folder as an artefact": ("models: {m: {source: f/, format: passthrough}}\n", "has no place among"),
    "a file as a model's folder": ("models: {m: {source: m.onnx, format: triton}}\n", "the source is a file"),
    "a folder without versions": ("models: {m: {source: m/, format: triton}}\n", "has no version"),
    "no backend": ("models: {m: {source: m/, format: passthrough}}\n", "nothing says which backend"),
    "a base that is gone": (f"{HEAD}, base: gone.pbtxt}}\n", "a source is missing"),
    "a damaged base": (f"{HEAD}, base: m/weights.bin}}\n", "no valid config.pbtxt"),
    "a path of Triton's": (f"{HEAD}, folder_files: {{2/x: m.onnx}}}}\n", "belongs to Triton"),
    "a damaged variant": (f"{HEAD}, folder_files: {{configs/a.pbtxt: m/weights.bin}}}}\n", "no valid config.pbtxt"),
    "an unknown field": (f"{HEAD}, config: {{max_batchsize: 4}}}}\n", "no field 'max_batchsize'"),
    "a field of a later Triton": (f"{HEAD}, config: {{model_metrics: {{}}}}}}\n", "does not know `model_metrics`"),
    "golden cases without tensors": (f"{HEAD}, golden: {{ranges: {{x: {{low: 0}}}}}}}}\n", "leaves to the server"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_sense_is_refused(home: Path, write_spec: WriteSpec, what: str) -> None:
    text, message = REFUSED[what]
    spec = write_spec(text)
    write_files(
        spec.parent,
        {"m/weights.bin": "{", "m.onnx": b"x", "f/config.pbtxt": TREES, "f/1/fraud.json": "{}", "config.pbtxt": TREES},
    )
    error = refused(spec)
    assert isinstance(error, SpecError)
    assert message in error.message
    assert error.place is not None and str(error.place)


def test_a_default_is_left_out_by_null(home: Path, write_spec: WriteSpec) -> None:
    spec = write_spec(
        "defaults: {model: {template: throughput, simplify: true}}\n"
        "models:\n  m: {source: m/, format: passthrough, backend: mine, template: null, simplify: null}\n"
    )
    write_files(spec.parent, {"m/weights.bin": b"x"})
    assert read_config(released(spec).models_folder / "m").backend == "mine"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("models: {m: {source: f/}}\n", "`format: triton`"),
        ("models: {m: {source: m/}}\n", "`format: passthrough`"),
        ("models: {m: {source: m.py, backend: vllm, outputs: {y: 'FP32[1]'}}}\n", "`format: passthrough`"),
    ],
)
def test_errors_about_formats_name_the_way_out(home: Path, write_spec: WriteSpec, text: str, hint: str) -> None:
    spec = write_spec(text)
    code = "class TritonPythonModel:\n    def execute(self, requests): return []\n"
    write_files(spec.parent, {"m/weights.bin": b"x", "m.py": code, "f/config.pbtxt": TREES, "f/1/fraud.json": "{}"})
    error = refused(spec)
    assert error.hint is not None and hint in error.hint
