"""Arrays to and from the tensors of the inference protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.datatypes import BY_NAME, data_type
from tritonforge.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

_BY_NUMPY: Final = {item.numpy: item.name for item in BY_NAME.values() if item.numpy not in (None, "object")}


def wire_type(name: str, array: np.ndarray[Any, Any], datatype: str | None) -> str:
    """The protocol's type for ``array``: as asked, or as its dtype says; text and objects are ``BYTES``.

    Raises:
        UsageError: the dtype has no counterpart.
    """
    if datatype is not None:
        return data_type(datatype).name
    if array.dtype.kind in "OSU":
        return "BYTES"
    if array.dtype.name == "bfloat16":
        return "BF16"
    found = _BY_NUMPY.get(array.dtype.name)
    if found is None:
        raise UsageError(
            f"input '{name}' has the type {array.dtype}, which Triton has not",
            expected=", ".join(sorted(_BY_NUMPY.values())) + ", BF16 or BYTES",
        )
    return found


def wire_array(name: str, array: np.ndarray[Any, Any], datatype: str) -> np.ndarray[Any, Any]:
    """``array`` as ``tritonclient`` wants it for ``datatype``; values are never changed.

    ``BF16`` is handed over as float32 (the serializer cuts it), ``BYTES`` as an object array of bytes.

    Raises:
        UsageError: the array does not hold that type.
    """
    import numpy as np

    if datatype == "BYTES":
        if array.dtype.kind not in "OSU":
            raise UsageError(f"input '{name}' is BYTES", expected="an array of bytes or str", found=f"{array.dtype}")
        flat = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
        out = np.empty(len(flat), dtype=np.object_)
        out[:] = flat
        return out.reshape(array.shape)
    if datatype == "BF16":
        if array.dtype.name not in ("bfloat16", "float32"):
            raise UsageError(f"input '{name}' is BF16", expected="bfloat16 or float32", found=f"{array.dtype}")
        return np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
    wanted = data_type(datatype).numpy
    if array.dtype.name != wanted:
        raise UsageError(f"input '{name}' is {datatype}", expected=f"an array of {wanted}", found=f"{array.dtype}")
    # ascontiguousarray turns rank 0 into rank 1: the shape is put back.
    return np.ascontiguousarray(array).reshape(array.shape)
