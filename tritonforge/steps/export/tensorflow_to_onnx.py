"""``tensorflow-to-onnx``: a TensorFlow source as an ONNX graph, with tf2onnx."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError, Place
from tritonforge.runners.kept import require_kept
from tritonforge.runners.onnx import MODEL
from tritonforge.runners.onnx_session import open_session
from tritonforge.sources.onnx_file import facts, parse
from tritonforge.sources.tensorflow.framework import tensorflow
from tritonforge.sources.tensorflow.load import load_function
from tritonforge.sources.tensorflow.loaded import Loaded, first_lines
from tritonforge.steps.step import Job, Needs

_PYTHON: Final = "serve it with TensorFlow itself: `backend: python`"
_TOO_LARGE: Final = 2**31 - 2**20
"""A protobuf has at most 2 GiB; a little is left for the graph's structure."""


class TensorFlowToOnnx:
    """Freezes the source's function and converts it; names, types and dynamic axes must be the source's.

    The configuration has ``opset`` (null for the newest that tf2onnx and the installed ONNX both know). Layout stays
    as in the source: a model that takes NHWC images takes them after the conversion.
    """

    name = "tensorflow-to-onnx"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(
            memory=(1 << 30) + 8 * input_bytes, tools=("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime")
        )

    def run(self, job: Job) -> Draft:
        source = job.inputs["model"]
        signature = source.artifact.signature
        assert signature is not None
        converter = _tf2onnx()
        opset = _opset(job.config["opset"])
        loaded = load_function(source.folder, source.artifact.metadata["recipe"])
        place = Place(field=f"the source in tensorflow {tensorflow().__version__}")
        model, said = _convert(loaded, opset, place)
        _refuse_unconverted(model, said, place)
        model.producer_version = converter.__version__
        _name_axes(model, signature)
        target = job.out / MODEL
        target.write_bytes(model.SerializeToString(deterministic=True))
        found = facts(parse(target), place)
        if found.opset != opset:
            raise CheckFailed(
                "tf2onnx wrote another opset than was asked", place=place, expected=str(opset), found=str(found.opset)
            )
        require_kept(signature, found.signature, what="the ONNX graph", hint=_PYTHON)
        open_session(target, optimise=False, place=place)
        notes = [str(note) for note in source.artifact.metadata.get("notes", ())]
        if any(len(tensor.shape) == 4 for tensor in signature.inputs):
            notes.append("images keep the layout of the source, which in TensorFlow is NHWC unless it says otherwise")
        metadata = {
            **found.metadata(),
            "external": [],
            "notes": notes,
            "made_by": f"tf2onnx {converter.__version__} (tensorflow {tensorflow().__version__})",
            "generation": source.artifact.metadata.get("generation"),
        }
        print(f"opset {found.opset}, {len(model.graph.node)} nodes")  # noqa: T201 - the step's log
        return Draft("onnx", signature, metadata)


def _tf2onnx() -> Any:
    tensorflow()
    try:
        import tf2onnx
    except ImportError as error:
        raise EnvironmentLacks(
            "the package tf2onnx cannot be imported", found=str(error), hint="pip install 'tritonforge[tensorflow]'"
        ) from None
    return tf2onnx


def _opset(asked: int | None) -> int:
    """The opset to write.

    Raises:
        CheckFailed: tf2onnx cannot write the one that is asked for.
    """
    import onnx
    from tf2onnx import constants

    known = [int(opset) for opset in constants.OPSET_TO_IR_VERSION if opset <= onnx.defs.onnx_opset_version()]
    if asked is None:
        return max(known)
    if asked not in known:
        raise CheckFailed(
            f"tf2onnx cannot write opset {asked}",
            expected=f"an opset from {min(known)} to {max(known)}",
            found=str(asked),
            hint="change or drop `export.opset`",
        )
    return asked


def _convert(loaded: Loaded, opset: int, place: Place) -> tuple[Any, list[str]]:
    """The ONNX model, and what tf2onnx said went wrong on the way."""
    from tf2onnx import convert, tf_loader, utils

    tf = tensorflow()
    function = loaded.function
    captured = {tensor.name for tensor in function.graph.internal_captures}
    inputs = [tensor.name for tensor in function.inputs if tensor.name not in captured]
    outputs = [tensor.name for tensor in function.outputs]
    names = {
        **dict(zip(inputs, (tensor.name for tensor in loaded.inputs), strict=True)),
        **dict(zip(outputs, loaded.outputs, strict=True)),
    }
    size = sum(variable.shape.num_elements() * variable.dtype.size for variable in function.graph.variables)
    if size > _TOO_LARGE:
        raise CheckFailed(
            "the model is too large for one ONNX file",
            place=place,
            expected="less than 2 GiB of weights",
            found=f"{size / 2**30:.1f} GiB",
            hint=_PYTHON,
        )
    utils.INTERNAL_NAME = 1  # names are counted over the whole process; simple networks get equal bytes
    with _listening() as said:
        try:
            with tf.device("/cpu:0"):
                frozen, tables = tf_loader.from_trackable(loaded.holder, function, inputs, outputs, False)
                model, _ = convert._convert_common(
                    frozen,
                    name="tensorflow",
                    continue_on_error=True,
                    opset=opset,
                    input_names=inputs,
                    output_names=outputs,
                    tensors_to_rename=names,
                    initialized_tables=tables,
                )
        except ForgeError:
            raise
        except Exception as error:  # tf2onnx raises what its handlers raise
            raise CheckFailed(
                "tf2onnx cannot convert the model",
                place=place,
                found=f"{type(error).__name__}: {first_lines(error)}",
                details=said[:4],
                hint=_PYTHON,
            ) from None
    return model, said


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What tf2onnx logs as an error: it converts on and leaves holes in the graph."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = " ".join(record.getMessage().split("Traceback")[0].split())
            if text and text not in said:
                said.append(text[:200])

    logger, listener = logging.getLogger("tf2onnx"), Listener(logging.ERROR)
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)


def _refuse_unconverted(model: Any, said: Sequence[str], place: Place) -> None:
    """Refuse a graph that still has operators of TensorFlow.

    Raises:
        CheckFailed: with their names.
    """
    import onnx

    versions = {item.domain: item.version for item in model.opset_import}
    foreign = set()
    for node in _nodes(model.graph):
        try:
            onnx.defs.get_schema(node.op_type, max_inclusive_version=versions.get(node.domain, 1), domain=node.domain)
        except onnx.defs.SchemaError:
            foreign.add(node.op_type)
    if foreign:
        raise CheckFailed(
            "ONNX has nothing for some operators of the model",
            place=place,
            found=", ".join(sorted(foreign)),
            details=list(said[:3]),
            hint=f"{_PYTHON}; or leave them out of the model",
        )


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
            for inner in attribute.graphs:
                yield from _nodes(inner)


def _name_axes(model: Any, signature: Signature) -> None:
    """Give dynamic axes the names of the signature; an output of which tf2onnx knows no rank gets the source's."""
    for values, tensors in ((model.graph.input, signature.inputs), (model.graph.output, signature.outputs)):
        by_name = {tensor.name: tensor for tensor in tensors}
        for value in values:
            if value.name in by_name:
                _name(value.type.tensor_type, by_name[value.name])
        _in_order(values, [tensor.name for tensor in tensors])


def _name(found: Any, tensor: Tensor) -> None:
    if not found.HasField("shape"):
        if found.elem_type != BY_NAME[tensor.datatype].onnx:
            return  # the comparison of signatures says so
        for _ in tensor.shape:
            found.shape.dim.add()
    if len(found.shape.dim) != len(tensor.shape):
        return
    for dim, own in zip(found.shape.dim, tensor.shape, strict=True):
        if not (dim.HasField("dim_value") and dim.dim_value >= 0):
            dim.ClearField("dim_value")
            if isinstance(own, str):
                dim.dim_param = own.lstrip("?")
            else:
                dim.dim_value = own


def _in_order(values: Any, names: list[str]) -> None:
    """tf2onnx keeps the order of its own graph."""
    if {value.name for value in values} != set(names) or len(values) != len(names):
        return
    made = sorted(
        (type(value).FromString(value.SerializeToString()) for value in values), key=lambda v: names.index(v.name)
    )
    del values[:]
    values.extend(made)
