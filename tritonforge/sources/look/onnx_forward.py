"""Find the shapes that ONNX's inference over a whole graph leaves open, node by node, with shape values at hand.

ONNX's own data propagation stops at operators such as Slice with computed bounds, which every exported transformer has.
Here each node is inferred by its schema, and small integer values are computed on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Final

from tritonforge.sources.look.onnx_flops import Shape
from tritonforge.sources.look.onnx_light import messages, native
from tritonforge.sources.look.onnx_types import bytes_of
from tritonforge.sources.look.onnx_values import Array, decode, encode, evaluate, number_of, shape_value

_NESTED: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def complete(model: Any, shapes: dict[str, Shape], size: dict[str, int]) -> None:
    """Add to ``shapes`` and to ``size`` (bytes) what can be found; ``shapes`` has inputs and weights already."""
    _Forward(model, shapes, size).run()


class _Forward:
    def __init__(self, model: Any, shapes: dict[str, Shape], size: dict[str, int]) -> None:
        self._model = model
        self._graph = model.graph
        self._shapes = shapes
        self._size = size
        self._values: dict[str, Array | None] = {}
        self._constants = {tensor.name: tensor for tensor in self._graph.initializer}
        self._elements = {tensor.name: tensor.data_type for tensor in self._graph.initializer}
        for values in (self._graph.input, self._graph.value_info, self._graph.output):
            for value in values:
                if value.type.tensor_type.elem_type:
                    self._elements[value.name] = value.type.tensor_type.elem_type
        self._opsets: Mapping[str, int] = {item.domain: item.version for item in model.opset_import}
        self._schemas: dict[tuple[str, str], Any] = {}

    def run(self) -> None:
        for node in self._graph.node:
            self._follow(node)
            if node.op_type not in _NESTED and any(name and name not in self._shapes for name in node.output):
                self._infer(node)

    def _value(self, name: str) -> Array | None:
        if name not in self._values:
            tensor = self._constants.get(name)
            self._values[name] = None if tensor is None else decode(tensor)
        return self._values[name]

    def _follow(self, node: Any) -> None:
        """Compute what the node makes, if that is a small value of known ones."""
        kind = node.op_type
        if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            return
        made: Array | None = None
        if kind == "Constant":
            made = next((decode(item.t) for item in node.attribute if item.name == "value"), None)
        elif kind in ("Shape", "Size"):
            shape = self._shapes.get(node.input[0]) if node.input else None
            made = None if shape is None else shape_value(node, shape)
        else:
            inputs = [self._value(name) if name else None for name in node.input]
            if inputs and all(value is not None or not name for value, name in zip(inputs, node.input, strict=True)):
                made = evaluate(node, inputs)
        if made is not None:
            self._values[node.output[0]] = made
            self._note(node.output[0], number_of(made), made.shape)

    def _note(self, name: str, element: int, shape: Shape) -> None:
        self._elements[name] = element
        self._shapes[name] = shape
        self._size[name] = bytes_of(element, prod(shape))

    def _infer(self, node: Any) -> None:
        schema = self._schema(node)
        if schema is None:
            return
        types, data = {}, {}
        for name in node.input:
            if not name:
                continue
            element = self._elements.get(name)
            if element is None:
                return
            types[name] = self._type(name, element)
            value = self._value(name)
            if value is not None:
                data[name] = encode(value, messages().TensorProto()).SerializeToString()
        try:
            found = schema._infer_node_outputs(
                node.SerializeToString(), types, data, {}, dict(self._opsets), self._model.ir_version
            )
        except Exception:  # of a node that its schema refuses nothing is known
            return
        for name, said in found.items():
            tensor = messages().TypeProto.FromString(said).tensor_type
            if tensor.elem_type:
                self._elements[name] = tensor.elem_type
                if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                    self._note(name, tensor.elem_type, tuple(int(dim.dim_value) for dim in tensor.shape.dim))

    def _schema(self, node: Any) -> Any:
        key = (node.domain, node.op_type)
        if key not in self._schemas:
            domain = "" if key[0] == "ai.onnx" else key[0]
            version = self._opsets.get(key[0], self._opsets.get("" if domain == "" else domain, 1))
            try:
                self._schemas[key] = native().defs.get_schema(key[1], version, domain)
            except Exception:  # the native part's own SchemaError, whose class differs between versions
                self._schemas[key] = None
        return self._schemas[key]

    def _type(self, name: str, element: int) -> bytes:
        said = messages().TypeProto()
        said.tensor_type.elem_type = element
        shape = self._shapes.get(name)
        if shape is not None:
            said.tensor_type.shape.SetInParent()
            for size in shape:
                said.tensor_type.shape.dim.add().dim_value = size
        return bytes(said.SerializeToString())
