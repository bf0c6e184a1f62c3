from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import making_onnx as making
import onnx
import pytest
from onnx import TensorProto, helper

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.onnx_file import OnnxFacts, external_files, facts, parse


def read(path: Path) -> OnnxFacts:
    return facts(parse(path), Place(path))


def of(model: onnx.ModelProto) -> OnnxFacts:
    return facts(model, Place(Path("net.onnx")))


@pytest.mark.parametrize(
    ("make", "inputs", "outputs", "batched"),
    [
        (making.batched_add, ["x: FP32[N,4]"], ["y: FP32[N,4]"], True),
        (making.unbatched_add, ["x: FP32[3]"], ["y: FP32[3]"], False),
        (making.dynamic_text, ["x: FP32[batch,seq,2]"], ["y: FP32[batch,seq,2]"], True),
        (making.two_inputs, ["a: FP32[N,2]", "b: FP32[N,2]"], ["y: FP32[N,2]"], True),
        (making.text_in_text_out, ["TEXT: BYTES[N,1]"], ["SAME: BYTES[N,1]"], True),
        (making.scalar_out, ["x: FP32[3]"], ["total: FP32[]"], False),
    ],
)
def test_the_signature_is_what_the_file_says(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], inputs: list[str], outputs: list[str], batched: bool
) -> None:
    found = read(making.save(tmp_path / "net.onnx", make()))
    assert [str(tensor) for tensor in found.signature.inputs] == inputs
    assert [str(tensor) for tensor in found.signature.outputs] == outputs
    assert found.signature.batched is batched
    assert (found.opset, found.producer, found.external) == (17, "tests", ())


def test_axes_without_a_name_get_one_of_their_own() -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    made = making.model(
        [node], [making.value("a", [None, 2]), making.value("b", [None, 2])], [making.value("y", [None, 2])]
    )
    shapes = [tensor.shape for tensor in of(made).signature.inputs]
    assert len({shape[0] for shape in shapes}) == 2
    assert all(isinstance(shape[0], str) for shape in shapes)


def test_weights_that_old_exporters_list_as_inputs_are_none() -> None:
    made = making.batched_add()
    made.graph.input.append(making.value("c", [4]))
    assert [tensor.name for tensor in of(made).signature.inputs] == ["x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: data[: len(data) // 2], "truncated or not ONNX"),
        (lambda data: data[:2], "truncated or not ONNX"),
        (lambda data: b"this is a text file about networks\n" * 9, "truncated or not ONNX"),
        (lambda data: b"\x89PNG\r\n\x1a\n" + bytes(64), "truncated or not ONNX"),
        (lambda data: b"<html>no such model</html>", "truncated or not ONNX"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "truncated or not ONNX"),
    ],
    ids=["empty", "half", "two bytes", "text", "png", "html", "git-lfs pointer"],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content(making.batched_add().SerializeToString()))
    with pytest.raises(CheckFailed, match=message) as raised:
        read(path)
    assert raised.value.place == Place(path)


def test_the_name_of_a_file_does_not_say_how_to_read_it(tmp_path: Path) -> None:
    assert read(making.save(tmp_path / "net.json", making.batched_add())).opset == 17


def with_opset(version: int, domain: str = "") -> onnx.ModelProto:
    made = making.batched_add()
    made.opset_import[0].version = version
    made.opset_import[0].domain = domain
    return made


@pytest.mark.parametrize("version", [0, 6, onnx.defs.onnx_opset_version() + 1, 9999])
def test_an_opset_out_of_range_is_refused(version: int) -> None:
    with pytest.raises(CheckFailed, match=f"opset {version} is not supported") as raised:
        of(with_opset(version))
    assert "from 7 to" in str(raised.value.expected)


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_both_names_of_the_standard_operators_are_known(domain: str) -> None:
    assert of(with_opset(13, domain)).opset == 13


def foreign(domain: str) -> onnx.ModelProto:
    node = helper.make_node("Magic", ["x"], ["y"], domain=domain)
    made = making.model([node], [making.value("x", [1])], [making.value("y", [1])])
    made.opset_import.append(helper.make_opsetid(domain, 1))
    return made


def test_operators_that_onnx_runtime_lacks_are_named() -> None:
    with pytest.raises(CheckFailed, match="operators that ONNX Runtime does not have") as raised:
        of(foreign("my.company"))
    assert raised.value.found == "my.company::Magic"


@pytest.mark.parametrize(
    ("domain", "owner"),
    [("ai.onnx.contrib", "onnxruntime-extensions"), ("trt.plugins", "TensorRT plugins"), ("org.pytorch.aten", "ATen")],
)
def test_well_known_domains_are_said_to_be_whose_they_are(domain: str, owner: str) -> None:
    with pytest.raises(CheckFailed, match="operators that ONNX Runtime does not have") as raised:
        of(foreign(domain))
    assert raised.value.found == f"{domain}::Magic"
    assert owner in raised.value.details[0]


def test_foreign_operators_are_found_in_branches_and_in_functions() -> None:
    branch = helper.make_graph(
        [helper.make_node("Deep", [], ["b"], domain="my.company")], "b", [], [making.value("b", [1])]
    )
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    made = making.model([node], [making.value("flag", [], TensorProto.BOOL)], [making.value("y", [1])])
    with pytest.raises(CheckFailed) as raised:
        of(made)
    assert raised.value.found == "my.company::Deep"
    outer = foreign("own")
    body = [helper.make_node("Inner", ["a"], ["b"], domain="other")]
    outer.functions.append(helper.make_function("own", "Magic", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    with pytest.raises(CheckFailed) as raised:
        of(outer)
    assert raised.value.found == "other::Inner"


def test_trees_without_standard_operators_need_no_opset_of_them() -> None:
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[1.0])
    made = making.model([node], [making.value("x", ["N", 2])], [making.value("y", ["N", 2])])
    del made.opset_import[:]
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    assert of(made).domains == {"ai.onnx.ml": 1}


def test_operators_that_the_file_defines_or_microsoft_has_are_taken() -> None:
    assert of(foreign("com.microsoft")).domains["com.microsoft"] == 1
    made = foreign("my.company")
    body = [helper.make_node("Neg", ["a"], ["b"])]
    made.functions.append(
        helper.make_function("my.company", "Magic", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    assert of(made).domains["my.company"] == 1


def with_output(value: onnx.ValueInfoProto) -> onnx.ModelProto:
    return making.model([helper.make_node("Identity", ["x"], ["y"])], [making.value("x", [1])], [value])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [1]), "'y' is a sequence"),
        (
            helper.make_value_info(
                "y", helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
            ),
            "'y' is a map",
        ),
        (helper.make_value_info("y", onnx.TypeProto()), "'y' is a value without a type"),
        (making.value("y", None), "'y' has no rank"),
        (making.value("y", [1], TensorProto.COMPLEX64), "which Triton cannot carry"),
        (making.value("y", [1], TensorProto.INT4), "which Triton cannot carry"),
    ],
)
def test_what_triton_cannot_carry_is_refused(value: onnx.ValueInfoProto, message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        of(with_output(value))


class TestExternalData:
    def test_its_files_are_listed_without_reading_them(self, tmp_path: Path) -> None:
        path = making.save_external(tmp_path / "net.onnx")
        (tmp_path / "weights.bin").unlink()
        assert read(path).external == ("weights.bin",)

    @pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../b", ""])
    def test_a_file_outside_the_models_folder_is_refused(self, tmp_path: Path, location: str) -> None:
        made = parse(making.save_external(tmp_path / "net.onnx"))
        entries = made.graph.initializer[0].external_data
        next(entry for entry in entries if entry.key == "location").value = location
        with pytest.raises(CheckFailed, match="outside the model's folder"):
            external_files(made, Place())

    def test_weights_inside_branches_are_seen_too(self, tmp_path: Path) -> None:
        inner = parse(making.save_external(tmp_path / "net.onnx")).graph.initializer[0]
        branch = helper.make_graph(
            [helper.make_node("Identity", ["c"], ["b"])], "b", [], [making.value("b", [256])], [inner]
        )
        node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
        made = making.model([node], [making.value("flag", [], TensorProto.BOOL)], [making.value("y", [256])])
        assert external_files(made, Place()) == ("weights.bin",)
