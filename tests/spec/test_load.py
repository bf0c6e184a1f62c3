from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tritonforge.errors import SpecError
from tritonforge.spec.load import load

Write = Callable[..., Path]
MODEL = "models:\n  net: {source: net.onnx}\n"


def refused(file: Path, **options: object) -> SpecError:
    with pytest.raises(SpecError) as raised:
        load(file, **options)  # type: ignore[arg-type]
    return raised.value


# name: text from line 3 on, a part of the message, line, field, a part of the hint or None
BAD: dict[str, tuple[str, str, int, str | None, str | None]] = {
    "unknown key at the top": ("modles: {}\n" + MODEL, "unknown key 'modles'", 3, "modles", "'models'"),
    "unknown key in a model": (
        "models:\n  net:\n    source: a.onnx\n    templete: x\n",
        "unknown key 'templete'",
        6,
        "models.net.templete",
        "'template'",
    ),
    "a misspelt source is named before the missing one": (
        "models:\n  net:\n    souce: a.onnx\n",
        "unknown key 'souce'",
        5,
        "models.net.souce",
        "'source'",
    ),
    "nothing that proves a model": (
        "models:\n  net:\n    source: a.onnx\n    golden: {generated: false}\n",
        "leaves nothing that proves the model",
        6,
        "models.net.golden",
        None,
    ),
    "unknown key in a source": (
        "models:\n  net:\n    source: {path: a, sha: b}\n",
        "unknown key 'sha'",
        5,
        "models.net.source.sha",
        "'sha256'",
    ),
    "unknown key below golden": (
        "models:\n  net:\n    source: a\n    golden:\n      ranges:\n        x: {lo: 1}\n",
        "unknown key 'lo'",
        8,
        "models.net.golden.ranges.x.lo",
        "'low'",
    ),
    "unknown key in a tensor": (
        "models:\n  net:\n    source: a\n    inputs:\n      X: {type: 'FP32[1]', optionl: true}\n",
        "unknown key 'optionl'",
        7,
        "models.net.inputs.X.optionl",
        "'optional'",
    ),
    "unknown key in a union field": (
        MODEL + "ensembles:\n  e:\n    inputs: {X: {tipe: 'FP32[1]'}}\n    outputs: [Y]\n    steps: [{model: net}]\n",
        "unknown key 'tipe'",
        7,
        "ensembles.e.inputs.X.tipe",
        "'type'",
    ),
    "unknown key in a router": (
        "models:\n  net:\n    source: a\n    router: {templat: x}\n",
        "unknown key 'templat'",
        6,
        "models.net.router.templat",
        "'template'",
    ),
    "unknown key in a step": (
        MODEL + "ensembles:\n  e:\n    inputs: [X]\n    outputs: [Y]\n    steps:\n      - modl: net\n",
        "unknown key 'modl'",
        10,
        "ensembles.e.steps[0].modl",
        "'model'",
    ),
    "unknown server setting": (
        MODEL + "server:\n  readines: {strict: true}\n",
        "unknown key 'readines'",
        6,
        "server.readines",
        "'readiness'",
    ),
    "missing source": ("models:\n  net: {}\n", "'source' is missing", 4, "models.net", None),
    "missing slo": (MODEL + "gates: {g: {model: net}}\n", "'slo' is missing", 5, "gates.g", None),
    "no models": ("description: x\n", "no models", 1, None, None),
    "models is a list": ("models: [net]\n", "valid dictionary", 3, "models", None),
    "a model is text": ("models:\n  net: net.onnx\n", "valid dictionary", 4, "models.net", None),
    "bad name": ("models:\n  '../net': {source: a}\n", "not allowed", 4, "models.../net", None),
    "triton as a number": (
        "platforms:\n  gpu: {triton: 24.10}\n" + MODEL,
        "valid string",
        4,
        "platforms.gpu.triton",
        "quotes",
    ),
    "triton of another form": (
        "platforms:\n  gpu: {triton: '24'}\n" + MODEL,
        "not allowed",
        4,
        "platforms.gpu.triton",
        None,
    ),
    "unknown format": ("models:\n  net: {source: a, format: onxx}\n", "'onnx'", 4, "models.net.format", None),
    "a dim of zero": (
        "models:\n  net:\n    source: a\n    inputs: {X: 'FP32[0]'}\n",
        "size 0 on axis 0",
        6,
        "models.net.inputs.X",
        None,
    ),
    "an unknown data type": (
        "models:\n  net:\n    source: a\n    inputs: {X: 'FLOAT[1]'}\n",
        "unknown data type 'FLOAT'",
        6,
        "models.net.inputs.X",
        None,
    ),
    "source of two kinds": (
        "models:\n  net:\n    source: {path: a, package: b, file: c}\n",
        "just one of `path`, `package`",
        5,
        "models.net.source",
        None,
    ),
    "package without a file": (
        "models:\n  net:\n    source: {package: b}\n",
        "go together",
        5,
        "models.net.source",
        None,
    ),
    "half a package": (
        "models:\n  net:\n    source: 'package:b'\n",
        "package:NAME==VERSION",
        5,
        "models.net.source",
        None,
    ),
    "a package that is an option of pip": (
        "models:\n  net:\n    source: {package: '--index-url=http://evil', file: a}\n",
        "not allowed",
        5,
        "models.net.source.package",
        None,
    ),
    "a package that is an address": (
        "models:\n  net:\n    source: {package: 'git+https://evil/x', file: a}\n",
        "not allowed",
        5,
        "models.net.source.package",
        None,
    ),
    "a sha256 that is none": (
        "models:\n  net:\n    source: {path: a, sha256: abc}\n",
        "not allowed",
        5,
        "models.net.source.sha256",
        None,
    ),
    "range upside down": (
        "models:\n  net:\n    source: a\n    golden: {ranges: {x: {low: 2, high: 1}}}\n",
        "`low` 2.0 is above `high` 1.0",
        6,
        "models.net.golden.ranges.x",
        None,
    ),
    "negative batch": (
        "models:\n  net: {source: a, max_batch_size: -1}\n",
        "greater than or equal to 0",
        4,
        "models.net.max_batch_size",
        None,
    ),
    "unknown platform in only": (
        "models:\n  net:\n    source: a\n    only: [locl]\n",
        "no platform 'locl'",
        6,
        "models.net.only[0]",
        "'local'",
    ),
    "unknown platform in platforms": (
        "models:\n  net:\n    source: a\n    platforms:\n      locl: {}\n",
        "no platform 'locl'",
        7,
        "models.net.platforms.locl",
        "'local'",
    ),
    "unknown model in a step": (
        MODEL + "ensembles:\n  e:\n    inputs: [X]\n    outputs: [Y]\n    steps:\n      - model: nett\n",
        "no model 'nett'",
        10,
        "ensembles.e.steps[0].model",
        "'net'",
    ),
    "unknown model in a gate": (
        MODEL + "gates:\n  g:\n    model: nett\n    slo: {p50_ms: 1}\n",
        "no model 'nett'",
        7,
        "gates.g.model",
        "'net'",
    ),
    "one name for a model and an ensemble": (
        MODEL + "ensembles:\n  net: {inputs: [X], outputs: [Y], steps: [{model: net}]}\n",
        "both a model and an ensemble",
        1,
        None,
        None,
    ),
    "missing template folder": ("templates: [house]\n" + MODEL, "template folder is missing", 3, "templates", None),
    "two secrets": (
        MODEL + "connections:\n  c: {http: 'h:1', token: {env: A, file: b}}\n",
        "exactly one of",
        6,
        "connections.c.token",
        None,
    ),
    "env that says it at once": ("env: {A: hello}\n" + MODEL, "no mapping", 3, "env.A", None),
    "include that is no list": ("include: base.yaml\n" + MODEL, "list of paths", 3, "include", None),
    "missing include": ("include: [base.yaml]\n" + MODEL, "included file is missing", 3, "include[0]", None),
    "undeclared variable": (
        "models:\n  net: {source: '${WHERE}/a'}\n",
        "'WHERE' is not declared",
        4,
        "models.net.source",
        "env:",
    ),
    "variable without a value": (
        "env: {WHERE: {}}\nmodels:\n  net: {source: '${WHERE}/a'}\n",
        "'WHERE' is not set",
        5,
        "models.net.source",
        "set WHERE",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_spec_is_refused_with_file_line_field_and_hint(name: str, write_spec: Write) -> None:
    text, message, line, field, hint = BAD[name]
    file = write_spec(text)
    error = refused(file, environ={})
    assert message in error.message
    assert error.place is not None
    assert (error.place.file, error.place.line, error.place.field) == (file, line, field)
    assert hint is None or hint in str(error.hint)
    assert "list[" not in str(error) and "dict[" not in str(error), "pydantic's own words leak"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("name: tiny\n", "'apiVersion' is missing"),
        ("apiVersion: tritonforge/v2\nname: tiny\n", "tritonforge/v1"),
        ("apiVersion: tritonforge/v1\n", "'name' is missing"),
    ],
)
def test_the_head_is_required(head: str, message: str, write_spec: Write) -> None:
    assert message in refused(write_spec(MODEL, head=head)).message


def test_several_errors_are_told_at_once(write_spec: Write) -> None:
    text = "models:\n" + "".join(f"  m{n}: {{sorce: a}}\n" for n in range(6))
    error = refused(write_spec(text))
    assert error.message == "unknown key 'sorce'"
    assert sum("unknown key 'sorce'" in line for line in error.details) == 3
    assert error.details[-1] == "and 8 more"


class TestIncludesAndOverlays:
    def test_what_is_included_lies_below(self, write_spec: Write) -> None:
        write_spec("models:\n  net: {source: base.onnx, description: base}\n", "base.yaml", head="")
        file = write_spec("include: [base.yaml]\nmodels:\n  net: {source: own.onnx}\n")
        loaded = load(file)
        assert str(loaded.spec.models["net"].source) == "own.onnx"
        assert loaded.spec.models["net"].description == "base"
        assert loaded.place("models", "net", "description").file == file.with_name("base.yaml")

    def test_later_includes_lie_on_earlier_ones(self, write_spec: Write) -> None:
        for name in ("a", "b"):
            write_spec(f"models:\n  net: {{source: {name}.onnx}}\n", f"{name}.yaml", head="")
        assert str(load(write_spec("include: [a.yaml, b.yaml]\n")).spec.models["net"].source) == "b.onnx"

    def test_an_error_in_an_included_file_is_placed_there(self, write_spec: Write) -> None:
        base = write_spec("models:\n  net: {source: a, colour: red}\n", "base.yaml", head="")
        error = refused(write_spec("include: [base.yaml]\n"))
        assert error.place is not None
        assert (error.place.file, error.place.line) == (base, 2)

    def test_a_circle_is_named(self, write_spec: Write) -> None:
        write_spec("include: [forge.yaml]\n", "b.yaml", head="")
        write_spec("include: [b.yaml]\n", "a.yaml", head="")
        error = refused(write_spec("include: [a.yaml]\n" + MODEL))
        assert "circle" in error.message
        assert error.found == "forge.yaml → a.yaml → b.yaml → forge.yaml"

    def test_one_file_may_be_included_on_two_ways(self, write_spec: Write) -> None:
        write_spec(MODEL, "base.yaml", head="")
        for name in ("a", "b"):
            write_spec("include: [base.yaml]\n", f"{name}.yaml", head="")
        assert list(load(write_spec("include: [a.yaml, b.yaml]\n")).spec.models) == ["net"]

    def test_an_overlay_replaces_merges_and_removes(self, write_spec: Write) -> None:
        file = write_spec(
            "models:\n  net:\n    source: a\n    template: edge\n    config: {a: 1, b: 2}\n  gone: {source: b}\n"
        )
        over = write_spec(
            "models:\n  net:\n    template: null\n    config: {b: 3}\n  gone: null\n", "prod.yaml", head=""
        )
        spec = load(file, overlays=[over]).spec
        assert list(spec.models) == ["net"]
        assert spec.models["net"].template is None
        assert spec.models["net"].config == {"a": 1, "b": 3}

    def test_the_last_overlay_wins_and_errors_name_it(self, write_spec: Write) -> None:
        file = write_spec(MODEL)
        one = write_spec("models: {net: {template: one}}\n", "one.yaml", head="")
        two = write_spec("models: {net: {template: two}}\n", "two.yaml", head="")
        assert load(file, overlays=[one, two]).spec.models["net"].template == "two"
        bad = write_spec("\nmodels: {net: {templte: two}}\n", "bad.yaml", head="")
        error = refused(file, overlays=[one, bad])
        assert error.place is not None
        assert (error.place.file, error.place.line) == (bad, 2)

    def test_a_folder_stands_for_its_forge_yaml(self, write_spec: Write) -> None:
        file = write_spec(MODEL)
        assert load(file.parent).file == file


class TestDefaults:
    def test_they_lie_under_every_model(self, write_spec: Write) -> None:
        spec = load(
            write_spec(
                "defaults:\n  model: {template: edge, config: {a: {x: 1}, b: 2}}\n"
                "models:\n  one: {source: a}\n  two: {source: b, template: latency, config: {a: {y: 3}}}\n"
            )
        ).spec
        assert spec.models["one"].template == "edge"
        assert spec.models["one"].config == {"a": {"x": 1}, "b": 2}
        assert spec.models["two"].template == "latency"
        assert spec.models["two"].config == {"a": {"x": 1, "y": 3}, "b": 2}

    def test_null_in_a_model_takes_a_default_away(self, write_spec: Write) -> None:
        spec = load(
            write_spec("defaults: {model: {template: edge}}\nmodels:\n  net: {source: a, template: null}\n")
        ).spec
        assert spec.models["net"].template is None

    @pytest.mark.parametrize("kind", ["ensemble", "gate"])
    def test_ensembles_and_gates_have_them_too(self, kind: str, write_spec: Write) -> None:
        file = write_spec(
            "defaults:\n  ensemble: {max_batch_size: 7}\n  gate: {batch_size: 5}\n"
            + MODEL
            + "ensembles: {e: {inputs: [X], outputs: [Y], steps: [{model: net}]}}\n"
            + "gates: {g: {model: net, slo: {p50_ms: 1}}}\n"
        )
        spec = load(file).spec
        found = spec.ensembles["e"].max_batch_size if kind == "ensemble" else spec.gates["g"].batch_size
        assert found == (7 if kind == "ensemble" else 5)

    def test_a_wrong_default_is_placed_in_the_defaults(self, write_spec: Write) -> None:
        file = write_spec("defaults:\n  model:\n    golden:\n      sed: 1\n" + MODEL)
        error = refused(file)
        assert error.message == "unknown key 'sed'"
        assert error.place is not None
        assert (error.place.line, error.place.field) == (6, "models.net.golden.sed")

    def test_a_wrong_default_under_a_mapping_of_the_models_own_too(self, write_spec: Write) -> None:
        file = write_spec(
            "defaults:\n  model:\n    golden:\n      sed: 1\nmodels:\n  net:\n    source: a\n    golden: {seed: 2}\n"
        )
        error = refused(file)
        assert error.place is not None
        assert error.place.line == 6
        assert load(write_spec("defaults: {model: {golden: {seed: 1}}}\n" + MODEL)).spec.models["net"].golden.seed == 1


class TestEnvironment:
    def test_a_declared_variable_is_filled_in_everywhere_but_in_env(self, write_spec: Write) -> None:
        file = write_spec(
            "env: {WHERE: {default: '${WHERE}', description: x}}\n"
            "models:\n  net: {source: '${WHERE}/a-${WHERE}', requirements: ['${WHERE}']}\n"
        )
        model = load(file, environ={"WHERE": "there"}).spec.models["net"]
        assert str(model.source) == "there/a-there"
        assert model.requirements == ["there"]

    def test_a_default_is_taken_where_it_is_not_set(self, write_spec: Write) -> None:
        file = write_spec("env: {WHERE: {default: here}}\nmodels:\n  net: {source: '${WHERE}/a'}\n")
        assert str(load(file, environ={}).spec.models["net"].source) == "here/a"

    def test_a_value_is_not_filled_in_again(self, write_spec: Write) -> None:
        file = write_spec("env: {A: {}}\nmodels:\n  net: {source: '${A}'}\n")
        assert str(load(file, environ={"A": "${B}$${C}"}).spec.models["net"].source) == "${B}$${C}"

    def test_two_dollars_mean_the_text_itself(self, write_spec: Write) -> None:
        file = write_spec("models:\n  net: {source: a, description: 'costs $5 {x} $${HOME}'}\n")
        assert load(file, environ={"HOME": "/root"}).spec.models["net"].description == "costs $5 {x} ${HOME}"

    def test_no_variable_is_read_that_is_not_declared(self, write_spec: Write) -> None:
        assert (
            "not declared" in refused(write_spec("models: {net: {source: '${HOME}'}}\n"), environ={"HOME": "x"}).message
        )

    def test_a_number_from_outside_is_a_number(self, write_spec: Write) -> None:
        file = write_spec("env: {N: {}}\nmodels:\n  net: {source: a, max_batch_size: '${N}'}\n")
        assert load(file, environ={"N": "8"}).spec.models["net"].max_batch_size == 8


@pytest.mark.parametrize(
    ("text", "package", "version", "file", "path"),
    [
        ("net.onnx", None, None, None, "net.onnx"),
        ("path:package:x", None, None, None, "package:x"),
        ("package:magika==1.0.3/magika/a.onnx", "magika", "1.0.3", "magika/a.onnx", None),
        ("package:scikit-learn/x/y.csv", "scikit-learn", None, "x/y.csv", None),
    ],
)
def test_the_short_forms_of_a_source(
    text: str, package: str | None, version: str | None, file: str | None, path: str | None, write_spec: Write
) -> None:
    source = load(write_spec(f"models:\n  net: {{source: '{text}'}}\n")).spec.models["net"].source
    assert (source.package, source.version, source.file, source.path) == (package, version, file, path)
    assert str(source) == (path or text)


def test_tensors_and_ensemble_inputs_take_short_forms(write_spec: Write) -> None:
    spec = load(
        write_spec(
            "models:\n  net: {source: a, inputs: {X: 'FP32[3]', Y: {type: 'INT64[]', optional: true}}}\n"
            "ensembles:\n  e: {inputs: {X: null}, outputs: {Y: 'FP32[1]'}, steps: [{model: net, version: latest}]}\n"
        )
    ).spec
    assert spec.models["net"].inputs["X"].type == "FP32[3]"
    assert spec.models["net"].inputs["Y"].optional
    assert spec.ensembles["e"].inputs == {"X": None}
    assert spec.ensembles["e"].steps[0].version == "latest"


def test_a_thousand_models_load(write_spec: Write) -> None:
    models = "".join(f"  m{n}:\n    source: a.onnx\n    golden: {{seed: {n}}}\n" for n in range(1000))
    loaded = load(write_spec(f"defaults: {{model: {{template: edge}}}}\nmodels:\n{models}"))
    assert len(loaded.spec.models) == 1000
    assert loaded.place("models", "m999", "golden", "seed").line == 3 + 1 + 999 * 3 + 3


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("server: {options: {http-port: 1}}\n", "server.options.http-port", "--http-port"),
        ("server: {options: {log-file: x}}\n", "server.options.log-file", "--log"),
        ("server: {memory: {pinned_pool: many}}\n", "server.memory.pinned_pool", "no size"),
        ("server: {memory: {cuda_pool: {0: 1TiB}}}\n", "server.memory.cuda_pool.0", "no size"),
        ("server: {cache: {size: big}}\n", "server.cache.size", "no size"),
        ("connections: {a: {http: 'h:1', token: {command: []}}}\n", "connections.a.token.command", "at least 1"),
    ],
)
def test_settings_that_could_not_work_are_refused_where_they_stand(
    write_spec: Write, text: str, field: str, message: str
) -> None:
    error = refused(write_spec(text + MODEL))
    assert message in str(error)
    assert error.place is not None
    assert (error.place.line, error.place.field) == (3, field)
