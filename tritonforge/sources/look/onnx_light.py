"""ONNX's message classes and shape inference, without the cost of ``import onnx``.

``import onnx`` brings in numpy and every helper (about 110 ms); the message classes and the native part are two of its
modules that stand alone (about 35 ms). They are registered under their own names, so that a later ``import onnx`` in
the same process takes them over.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

from tritonforge.errors import EnvironmentLacks


def messages() -> Any:
    """The module with ``ModelProto`` and the other message classes."""
    return _part("onnx.onnx_ml_pb2")


def native() -> Any:
    """The module with ``shape_inference``, ``inliner`` and ``defs``; each works on serialized models."""
    return _part("onnx.onnx_cpp2py_export")


def _part(name: str) -> Any:
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    if "onnx" in sys.modules:
        return importlib.import_module(name)
    package = importlib.util.find_spec("onnx")
    if package is None or not package.submodule_search_locations:
        raise EnvironmentLacks("the package onnx is not installed", hint="install tritonforge again: it needs onnx")
    stem = name.partition(".")[2]
    for folder in package.submodule_search_locations:
        for suffix in (*importlib.machinery.EXTENSION_SUFFIXES, ".py"):
            file = Path(folder) / f"{stem}{suffix}"
            if file.is_file():
                return _load(name, file)
    return importlib.import_module(name)


def _load(name: str, file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        return importlib.import_module(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError:
        del sys.modules[name]
        return importlib.import_module(name)
    return module
