"""Whatever a repository holds – names, versions, files, any field of any config – comes back out of a build."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from actions.making_repository import Files, contents, read_config, version_folders, write_repository
from tritonforge.actions.build import BuildOptions, build
from tritonforge.actions.import_repository import import_repository
from tritonforge.actions.workspace import open_workspace
from tritonforge.errors import Place
from tritonforge.repository.given import GivenRequest, given_config, served_versions
from tritonforge.repository.pbtxt import is_map, repeated
from tritonforge.sources.resolve import SKIPPED
from tritonforge.spec.models import PlatformSpec
from tritonforge.spec.platform import resolve_platform

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = {
    "CPPTYPE_INT32": st.integers(-(2**31), 2**31 - 1),
    "CPPTYPE_UINT32": st.integers(0, 2**32 - 1),
    "CPPTYPE_INT64": st.integers(-(2**63), 2**63 - 1),
    "CPPTYPE_UINT64": st.integers(0, 2**64 - 1),
    "CPPTYPE_FLOAT": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "CPPTYPE_DOUBLE": st.floats(allow_nan=False, allow_infinity=False),
    "CPPTYPE_BOOL": st.booleans(),
}


def fill(draw: st.DrawFn, message: Any, depth: int = 0) -> None:
    """Set some of the fields of a message, of any kind that its descriptor knows."""
    fields = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    chosen = draw(st.lists(st.sampled_from(fields), max_size=4 if depth else 6, unique_by=lambda field: field.name))
    for field in chosen:
        if is_map(field):
            fill_map(draw, getattr(message, field.name), field, depth)
        elif field.message_type is not None:
            for _ in range(draw(st.integers(1, 2)) if repeated(field) else 1):
                inner = getattr(message, field.name)
                inner = inner.add() if repeated(field) else inner
                if not repeated(field):
                    inner.SetInParent()
                if depth < 4:
                    fill(draw, inner, depth + 1)
        elif repeated(field):
            getattr(message, field.name).extend(draw(st.lists(value(field), max_size=3)))
        else:
            setattr(message, field.name, draw(value(field)))


def fill_map(draw: st.DrawFn, mapping: Any, field: Any, depth: int) -> None:
    keys, values = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for key in draw(st.lists(value(keys), max_size=2)):
        if values.message_type is None:
            mapping[key] = draw(value(values))
        elif depth < 4:
            fill(draw, mapping[key], depth + 1)
        else:
            mapping[key].SetInParent()


def value(field: Any) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([item.number for item in field.enum_type.values])
    if field.cpp_type == field.CPPTYPE_STRING:
        return TEXT
    return next(strategy for name, strategy in NUMBERS.items() if getattr(field, name) == field.cpp_type)


@st.composite
def configs(draw: st.DrawFn) -> Any:
    """Any config at all."""
    message = model_config_pb2.ModelConfig()
    fill(draw, message)
    return message


@given(configs())
def test_a_config_is_taken_as_it_is(message: Any) -> None:
    message.ClearField("name")
    platform = resolve_platform("local", PlatformSpec(triton="99.12"))
    text = text_format.MessageToString(message, as_utf8=True)
    made = given_config(GivenRequest("a", "a", platform, text, Place()))
    assert made.message == message
    assert made.text == text


@given(configs(), configs())
def test_what_lies_above_changes_nothing_else(message: Any, above: Any) -> None:
    """A layer that says what the config says already leaves it as it is, to the last field."""
    from google.protobuf import json_format

    from tritonforge.repository.request import Layer

    for config in (message, above):
        config.ClearField("name")
    platform = resolve_platform("local", PlatformSpec(triton="99.12"))
    text = text_format.MessageToString(message, as_utf8=True)
    values = json_format.MessageToDict(message, preserving_proto_field_name=True)
    for tensors in (message.input, message.output):
        names = [item.name for item in tensors]
        if len(names) != len(set(names)) or "" in names:
            return  # inputs and outputs are laid over each other by name
    again = given_config(GivenRequest("a", "a", platform, text, Place(), (), (Layer("x", values, lambda _: Place()),)))
    assert again.message == message


PART = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda name: name not in SKIPPED and name not in (".", "..")
)
TOP = PART.filter(
    lambda name: not name.strip()[:1].isdigit() and name.strip()[:1] not in "+-" and name != "config.pbtxt"
)


@st.composite
def trees(draw: st.DrawFn, top: st.SearchStrategy[str]) -> dict[str, bytes]:
    """Files by path, none where a folder of another stands."""
    files: dict[str, bytes] = {}
    for _ in range(draw(st.integers(0, 4))):
        path = "/".join([draw(top), *draw(st.lists(PART, max_size=2))])
        above = {path[:index] for index, letter in enumerate(path) if letter == "/"}
        if not above & files.keys() and not any(other.startswith(f"{path}/") for other in files):
            files[path] = draw(st.binary(max_size=40))
    return files


@st.composite
def models(draw: st.DrawFn) -> Files:
    files: Files = dict(draw(trees(TOP)))
    files = {path: data for path, data in files.items() if path.partition("/")[0] != "configs"}
    versions = draw(st.lists(st.integers(1, 2**62) | st.integers(1, 12), min_size=1, max_size=3, unique=True))
    for number in versions:
        inner = draw(trees(PART))
        files.update({f"{number}/{path}": data for path, data in inner.items()} or {str(number): None})
    if draw(st.integers(0, 5)) == 0:
        newest = max(versions)
        files.pop(str(newest), None)
        if not any(path.startswith(f"{newest}/model.onnx") for path in files):
            files[f"{newest}/model.onnx"] = b"network"
        return files
    message = draw(configs())
    message.ClearField("name")
    if not message.backend and not message.platform:
        message.backend = "mine"
    if not served_versions(message, versions):
        message.ClearField("version_policy")
    files["config.pbtxt"] = text_format.MessageToString(message, as_utf8=draw(st.booleans()))
    return files


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True) | st.sampled_from(
    ["null", "on", "1e3", "2024-01-01", "0x1F", "1.5", "true", "a" * 200]
)
REPOSITORIES = st.dictionaries(NAMES, models(), min_size=1, max_size=4)


def builds_back(repository: dict[str, Files]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_repository(root / "repository", repository)
        outcome = import_repository(root / "repository", root / "spec")
        lock = (root / "spec" / "forge.lock").read_bytes()
        (built,) = build(open_workspace(root / "spec" / "forge.yaml"), BuildOptions(jobs=1)).platforms
        assert not built.failures, built.failures
        assert built.release is not None
        assert (root / "spec" / "forge.lock").read_bytes() == lock
        served = {(model.name, number) for model in outcome.models for number in model.served}
        assert {(entry["folder"], entry["version"]) for entry in built.release.models()} == served
        for model in repository:
            before, after = root / "repository" / model, built.release.models_folder / model
            assert read_config(after) == read_config(before)
            assert contents(after) == contents(before)
            assert version_folders(after) == version_folders(before)


BUILDING = [Phase.explicit, Phase.reuse, Phase.generate]
"""A build an example is too slow for shrinking."""


@settings(max_examples=6, phases=BUILDING, suppress_health_check=list(HealthCheck))
@given(repository=REPOSITORIES)
def test_a_repository_builds_back_to_itself(
    tmp_path_factory: pytest.TempPathFactory, repository: dict[str, Files]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITONFORGE_HOME", str(tmp_path_factory.getbasetemp() / "import-home"))
        builds_back(repository)


@pytest.mark.slow
@settings(max_examples=60, phases=BUILDING, suppress_health_check=list(HealthCheck))
@given(repository=REPOSITORIES)
def test_many_repositories_build_back_to_themselves(
    tmp_path_factory: pytest.TempPathFactory, repository: dict[str, Files]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITONFORGE_HOME", str(tmp_path_factory.getbasetemp() / "import-home"))
        builds_back(repository)
