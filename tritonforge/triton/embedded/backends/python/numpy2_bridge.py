"""Lets the Python backend of Triton 24.10 work with NumPy 2.

The backend's stub is built with a pybind11 that knows only NumPy 1: it reads the size of an array's element where
NumPy 1 kept it. NumPy 2 keeps the dtype's flags there, so without this bridge every input holds its first element
over and over, every output is empty, and nothing reports an error (the vendor's release notes say "use NumPy 1.x").

* Inputs are made by the stub through NumPy's table of C functions, with strides computed from the wrong size. The
  table that pybind11 looks up gets a ``PyArray_NewFromDescr`` that drops exactly those strides.
* Numeric outputs go through DLPack, which carries type and shape by itself.
* The bytes of string outputs are handed over as an array whose dtype says, in the place where the stub looks, that
  an element has one byte.

With NumPy 1 none of it is active.
"""

import ctypes
import math
import types

import numpy as np

_NEW_FROM_DESCR = 94  # its place in NumPy's table of functions, the same in NumPy 1 and 2
_TABLE_LENGTH = 320  # at least as long as the part of the table that pybind11 uses
_OLD_ELSIZE = 32  # where the C structure of a dtype held ``elsize`` in NumPy 1, and holds ``flags`` in NumPy 2
_USED = b"used_dltensor"
_kept = []  # what C code points at must never be collected


def activate(utils):
    """Bridge ``triton_python_backend_utils`` and what the stub puts into it."""
    if int(np.__version__.split(".")[0]) < 2:
        return
    _replace_table()
    plain = utils.serialize_byte_tensor

    def serialize_byte_tensor(array):
        data = plain(array)
        return data if data is None else _one_byte_elements(bytes(data))

    utils.serialize_byte_tensor = serialize_byte_tensor

    class Module(types.ModuleType):
        # The stub sets its classes as attributes of the module after it has been imported.
        def __setattr__(self, name, value):
            super().__setattr__(name, _tensor_class(value) if name == "Tensor" else value)

    utils.__class__ = Module


def _replace_table():
    import numpy.core.multiarray as old  # where pybind11 before 2.12 finds the table

    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    void, integer = ctypes.c_void_p, ctypes.c_int
    function = ctypes.PYFUNCTYPE(void, void, void, integer, void, void, void, integer, void)

    original = (void * _TABLE_LENGTH).from_address(pointer(old._ARRAY_API, None))
    real = function(original[_NEW_FROM_DESCR])

    def new_from_descr(subtype, descr, rank, dims, strides, data, flags, base):
        if strides and rank:
            last = ctypes.c_ssize_t.from_address(strides + ctypes.sizeof(ctypes.c_ssize_t) * (rank - 1)).value
            if last == ctypes.c_int.from_address(descr + _OLD_ELSIZE).value:
                strides = None  # computed from the wrong size: NumPy knows the right ones
        return real(subtype, descr, rank, dims, strides, data, flags, base)

    replacement = function(new_from_descr)
    table = (void * _TABLE_LENGTH)(*original)
    table[_NEW_FROM_DESCR] = ctypes.cast(replacement, void).value
    _kept.extend((table, replacement, real))
    old._ARRAY_API = capsule(ctypes.addressof(table), None, None)


def _one_byte_elements(data):
    dtype = np.dtype([("byte", "u1")])  # a structure, because NumPy shares its plain dtypes
    array = np.frombuffer(data, dtype=dtype)
    state = list(dtype.__reduce__()[2])
    state[7] = 1  # the flags. The array owns no memory, so NumPy never acts on them.
    dtype.__setstate__(tuple(state))
    return array


def _tensor_class(stub_tensor):
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename.argtypes = [ctypes.py_object, ctypes.c_char_p]

    class Meta(type):
        def __instancecheck__(cls, instance):
            return isinstance(instance, stub_tensor)

        def __getattr__(cls, name):
            return getattr(stub_tensor, name)

    class Tensor(metaclass=Meta):
        __doc__ = stub_tensor.__doc__

        def __new__(cls, name, array):
            if not isinstance(array, np.ndarray) or array.dtype.kind in "OSU":
                return stub_tensor(name, array)
            if not array.flags.c_contiguous or not array.flags.writeable or not array.dtype.isnative:
                array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
            if array.size == 0:
                # The stub reckons strides with the size 0, NumPy with 1 in its place: not contiguous, it says.
                strides = [array.itemsize * math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
                array = np.lib.stride_tricks.as_strided(array, strides=strides)
            package = array.__dlpack__()
            tensor = stub_tensor.from_dlpack(name, package)
            rename(package, _USED)  # as the protocol asks; the stub uses a name that NumPy complains about
            return tensor

        from_dlpack = staticmethod(stub_tensor.from_dlpack)

    return Tensor
