"""TensorFlow and Keras, imported when they are first needed, and quiet."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from typing import Any

from tritonforge.errors import EnvironmentLacks


def tensorflow() -> Any:
    """The module ``tensorflow``, without its chatter and without oneDNN's other orders of summation.

    Raises:
        EnvironmentLacks: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    module = _imported("tensorflow")
    with suppress(RuntimeError):  # it computed already, on what it had then
        module.config.set_visible_devices([], "GPU")  # references are computed on the CPU
    module.get_logger().setLevel("ERROR")
    return module


def keras() -> Any:
    """The module ``keras``, on TensorFlow.

    Raises:
        EnvironmentLacks: it is not installed, or this process has it on another framework.
    """
    tensorflow()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    module = _imported("keras")
    if module.backend.backend() != "tensorflow":
        raise EnvironmentLacks(
            "Keras runs on another framework here",
            expected="tensorflow",
            found=module.backend.backend(),
            hint="unset KERAS_BACKEND, or take it out of ~/.keras/keras.json",
        )
    return module


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentLacks(
            f"the package {name} cannot be imported", found=str(error), hint="pip install 'tritonforge[tensorflow]'"
        ) from None
