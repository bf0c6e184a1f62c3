"""The tensors in a pickle of PyTorch, by the names under which a state dict or a module holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.pickle_reader import Call, Global, Items, Pairs, Persistent

_NAMES_LIMIT: Final = 64 * 2**20
"""Characters of all names together: nested containers could make them grow with the square of the file."""
_DEPTH_LIMIT: Final = 100

_STORAGES: Final = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Byte": "uint8",
    "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "Bool": "bool", "QUInt8": "quint8",
    "QInt8": "qint8", "QInt32": "qint32", "ComplexFloat": "complex64", "ComplexDouble": "complex128",
    "QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4",
}  # fmt: skip
_DTYPES: Final = (
    "float16", "float32", "float64", "half", "float", "double", "bfloat16", "int8", "int16", "int32", "int64",
    "short", "int", "long", "uint8", "uint16", "uint32", "uint64", "bool", "complex32", "complex64", "complex128",
    "quint8", "qint8", "qint32", "quint4x2", "quint2x4", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
    "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2",
    "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
    "per_channel_affine_float_qparams",
)  # fmt: skip
_V2: Final = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_qtensor", "_rebuild_tensor_v3"}
_REBUILD: Final = (
    "_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_tensor",
    "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_sparse_tensor", "_rebuild_meta_tensor_no_storage",
    "_rebuild_nested_tensor", "_rebuild_wrapper_subclass", "_rebuild_device_tensor_from_numpy",
    "_rebuild_device_tensor_from_cpu_tensor",
)  # fmt: skip

WEIGHT_GLOBALS: Final = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch._tensor._rebuild_from_type_v2",
        "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage",
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.set",
        "builtins.complex",
    }
    | {f"torch.{name}Storage" for name in _STORAGES}
    | {f"torch.{name}" for name in _DTYPES}
    | {f"torch._utils.{name}" for name in _REBUILD}
)
"""What loading weights alone needs, as ``torch/_weights_only_unpickler.py`` (2.13) lists it."""

_MODULE_PARTS: Final = {"_parameters", "_buffers", "_modules"}
_BUFFERS: Final = {"running_mean", "running_var", "num_batches_tracked"}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One stored tensor: ``dtype`` in PyTorch's words (``float32``).

    ``tied_to`` names an earlier tensor with the very same bytes; ``trained`` is false for what a module keeps as a
    buffer, and None where the file does not say.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    tied_to: str | None = None
    trained: bool | None = None

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


def tensors_in(value: Any, place: Place, prefix: str = "") -> tuple[TensorEntry, ...]:
    """The tensors below ``value`` in the order of the file, each container visited once.

    Raises:
        CheckFailed: the names would fill the memory.
    """
    found: list[TensorEntry] = []
    homes: dict[Any, str] = {}
    seen: set[int] = set()
    budget = _NAMES_LIMIT
    waiting: list[tuple[str, Any, int]] = [(prefix, value, 0)]
    while waiting:
        name, item, depth = waiting.pop()
        tensor = _tensor(item)
        if tensor is not None:
            dtype, shape, home = tensor
            last = name.rpartition(".")[2]
            trained = False if last in _BUFFERS else None
            found.append(TensorEntry(name, dtype, shape, homes.get(home), trained))
            if home is not None:
                homes.setdefault(home, name)
            continue
        if id(item) in seen or depth > _DEPTH_LIMIT:
            continue
        children = _children(item)
        if children:
            seen.add(id(item))
        below = []
        for part, child in children:
            if isinstance(child, Call | Items | Pairs | tuple):
                full = f"{name}.{part}" if name and part else part or name
                budget -= len(full)
                if budget < 0:
                    raise CheckFailed("the names in the pickle are too long", place=place)
                below.append((full, child, depth + 1))
        waiting.extend(reversed(below))
    return tuple(found)


def _children(item: Any) -> list[tuple[str, Any]]:
    if isinstance(item, Pairs):
        return [(_key(key), child) for key, child in item.pairs]
    if isinstance(item, Items):
        return [(str(index), child) for index, child in enumerate(item.values)]
    if isinstance(item, tuple):
        return [(str(index), child) for index, child in enumerate(item)]
    if isinstance(item, Call):
        children = [(_key(key), child) for key, child in item.pairs]
        children.extend((str(index), child) for index, child in enumerate(item.values))
        if isinstance(item.state, Pairs):
            # A module keeps its weights in three dicts that are no part of their names.
            children.extend(
                ("" if key in _MODULE_PARTS else _key(key), child)
                for key, child in item.state.pairs
                if key != "_metadata"
            )
        elif item.state is not None:
            children.append(("", item.state))
        return children
    return []


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key[:1024]
    return str(key) if isinstance(key, int) and abs(key) < 2**63 else "?"


def _tensor(item: Any) -> tuple[str, tuple[int, ...], Any] | None:
    """The type, the shape and the place of the bytes, if the call would rebuild a tensor."""
    for _ in range(8):  # a parameter wraps a tensor, a subclass wraps a parameter
        if not isinstance(item, Call) or not isinstance(item.function, Global) or not isinstance(item.arguments, tuple):
            return None
        module, _, name = item.function.name.rpartition(".")
        arguments = item.arguments
        if module == "torch._tensor" and name == "_rebuild_from_type_v2" and len(arguments) >= 3:
            item = Call(arguments[0], arguments[2])
        elif module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            item = arguments[0] if arguments else None
        elif module == "torch._utils" and name in _V2 and len(arguments) >= 3:
            shape = _shape(arguments[2])
            if shape is None:
                return None
            dtype, key = _storage(arguments[0])
            if name == "_rebuild_tensor_v3" and len(arguments) >= 7:
                dtype = _dtype(arguments[6]) or dtype
            offset = arguments[1] if isinstance(arguments[1], int) else 0
            return dtype, shape, None if key is None else (key, offset, shape)
        elif module == "torch._utils" and name == "_rebuild_meta_tensor_no_storage" and len(arguments) >= 2:
            shape = _shape(arguments[1])
            return None if shape is None else (_dtype(arguments[0]) or "unknown", shape, None)
        else:
            return None
    return None


def _storage(value: Any) -> tuple[str, str | None]:
    """The element type and the key of ``('storage', type, key, place, elements)``."""
    if not isinstance(value, Persistent) or not isinstance(value.id, tuple) or len(value.id) < 3:
        return "unknown", None
    kind, key = value.id[1], value.id[2]
    dtype = "unknown"
    if isinstance(kind, Global):
        dtype = _STORAGES.get(kind.name.rpartition(".")[2].removesuffix("Storage"), "unknown")
    return dtype, key if isinstance(key, str) else None


def _dtype(value: Any) -> str | None:
    return value.name.rpartition(".")[2] if isinstance(value, Global) else None


def _shape(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, Call):  # torch.Size((…))
        value = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else None
    if isinstance(value, Items):
        value = tuple(value.values)
    if not isinstance(value, tuple) or len(value) > 64:
        return None
    if any(not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63 for size in value):
        return None
    return value
