"""A TensorFlow source, whatever it was, as one traced function over flat tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.signature import Dim, Tensor
from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.tensorflow.framework import tensorflow

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Loaded:
    """``function`` is a ``tf.ConcreteFunction`` from the inputs in order to a tuple of the outputs in order.

    Dynamic axes of ``inputs`` are called ``INPUT.AXIS``: TensorFlow has no names for them. ``holder`` keeps variables
    and tables alive, and ``ranges`` are values that the inputs can have, where the source says.
    """

    function: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    holder: Any
    place: Place
    ranges: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name.

        Raises:
            CheckFailed: TensorFlow cannot compute them; its words and the inputs' shapes are passed on.
        """
        tf = tensorflow()
        try:
            tensors = [
                tf.constant(feeds[tensor.name], dtype=spec.dtype)
                for tensor, spec in zip(self.inputs, self.specs, strict=True)
            ]
            answers = self.function(*tensors)
            return {name: _array(value) for name, value in zip(self.outputs, answers, strict=True)}
        except (tf.errors.OpError, ValueError, TypeError) as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise CheckFailed(
                "TensorFlow cannot run the model", place=self.place, found=f"{first_lines(error)} with {shapes}"
            ) from None

    @property
    def specs(self) -> list[Any]:
        """``tf.TensorSpec`` of every input."""
        return list(self.function.structured_input_signature[0])

    @property
    def datatypes(self) -> dict[str, str]:
        """Triton's type of every output."""
        return {
            name: datatype(value.dtype, name, self.place)
            for name, value in zip(self.outputs, self.function.structured_outputs, strict=True)
        }


def trace(
    call: Callable[..., Sequence[Any]],
    inputs: Sequence[tuple[str, Any]],
    outputs: Sequence[str] | None,
    holder: Any,
    place: Place,
    ranges: Mapping[str, Mapping[str, float]] | None = None,
) -> Loaded:
    """Trace ``call``, which takes flat tensors and gives flat tensors.

    ``inputs`` are names with a ``tf.TensorSpec``; ``outputs`` are ``output_0``, ``output_1``, … when they are None.

    Raises:
        CheckFailed: a tensor has a type or a rank that Triton cannot carry, or the model cannot be traced.
    """
    tf = tensorflow()
    tensors = tuple(declared_tensor(name, spec, place) for name, spec in inputs)
    signature = [tf.TensorSpec(spec.shape, spec.dtype, name=f"input_{place}") for place, (_, spec) in enumerate(inputs)]

    def flat(*values: Any) -> tuple[Any, ...]:
        return tuple(_plain(value, place) for value in call(*values))

    try:
        function = tf.function(flat, input_signature=signature, autograph=False).get_concrete_function()
    except (tf.errors.OpError, ValueError, TypeError, NotImplementedError, AttributeError) as error:
        raise CheckFailed(
            "TensorFlow cannot trace the model with these inputs",
            place=place,
            found=first_lines(error),
            expected=", ".join(map(str, tensors)),
        ) from None
    count = len(function.structured_outputs)
    if outputs is not None and len(outputs) != count:
        raise CheckFailed(
            "the model has another number of outputs than are named",
            place=place,
            expected=", ".join(outputs),
            found=f"{count} outputs",
        )
    names = tuple(outputs) if outputs is not None else tuple(f"output_{index}" for index in range(count))
    return Loaded(function, tensors, names, holder, place, ranges or {})


def declared_tensor(name: str, spec: Any, place: Place) -> Tensor:
    """A ``tf.TensorSpec`` as a tensor of a signature.

    Raises:
        CheckFailed: its type or its rank is none that Triton can carry.
    """
    if spec.shape.rank is None:
        raise CheckFailed(
            f"the input '{name}' has no rank",
            place=place,
            expected="a shape with a known number of axes",
            hint="export it with a `tf.TensorSpec` that has a shape, such as [None, 224, 224, 3]",
        )
    shape: tuple[Dim, ...] = tuple(
        f"{name}.{axis}" if size is None else int(size) for axis, size in enumerate(spec.shape.as_list())
    )
    return Tensor(name, datatype(spec.dtype, name, place), shape)


def datatype(dtype: Any, name: str, place: Place) -> str:
    """Triton's name of a TensorFlow type.

    Raises:
        CheckFailed: there is none.
    """
    if dtype.name == "bfloat16":
        return "BF16"
    wanted = "object" if dtype.name == "string" else dtype.name
    found = next((item.name for item in BY_NAME.values() if item.numpy == wanted), None)
    if found is None:
        raise CheckFailed(
            f"'{name}' has a type that Triton cannot carry", place=place, expected=", ".join(BY_NAME), found=dtype.name
        )
    return found


def tensor_type(name: str) -> Any:
    """The TensorFlow type of one of Triton's names."""
    tf = tensorflow()
    special = {"BYTES": tf.string, "BF16": tf.bfloat16}
    return special[name] if name in special else tf.as_dtype(BY_NAME[name].numpy)


def unique(names: Sequence[str]) -> list[str]:
    """The names, with ``_1``, ``_2``, … behind those that come again."""
    seen: list[str] = []
    for name in names:
        number, made = 0, name
        while made in seen:
            number += 1
            made = f"{name}_{number}"
        seen.append(made)
    return seen


def first_lines(error: BaseException) -> str:
    """A framework's message in one line."""
    text = str(error).split("Stack trace", 1)[0].split("Call stack:", 1)[0]
    return " ".join(text.split())[:400]


def _plain(value: Any, place: Place) -> Any:
    tf = tensorflow()
    if isinstance(value, tf.RaggedTensor | tf.SparseTensor | tf.IndexedSlices):
        raise CheckFailed(
            f"an output is a {type(value).__name__}",
            place=place,
            expected="dense tensors: Triton carries nothing else",
            hint="return `.to_tensor()`, or for a sparse one `tf.sparse.to_dense(…)`",
        )
    # An output that is an input itself would have no node of its own in a converted graph.
    return tf.identity(value)


def _array(value: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    found = value.numpy()
    if value.dtype.name == "bfloat16":
        return np.asarray(found.astype(np.float32))
    if value.dtype.name == "string":
        array = np.empty(value.shape.as_list(), dtype=object)
        array[...] = found
        return array
    return np.asarray(found)
