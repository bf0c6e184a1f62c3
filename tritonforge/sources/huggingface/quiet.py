"""Import transformers without what it would draw in and nothing here needs."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks

_UNWANTED: Final = ("torchvision", "torchaudio", "librosa", "sklearn", "scipy", "pandas", "tensorflow", "peft", "timm")
"""Optional packages that transformers imports where it finds them. They cost seconds, and one that does not fit the
installed PyTorch would make transformers itself unusable."""


@cache
def import_transformers() -> None:
    """Import transformers, its optional packages out of sight, also where something else imported it before.

    It asks once whether each is there and remembers the answer; other steps of the process find them as before.

    Raises:
        EnvironmentLacks: transformers is not installed.
    """
    if "transformers" not in sys.modules and importlib.util.find_spec("transformers") is None:
        raise EnvironmentLacks(
            "Hugging Face models need the package transformers",
            hint="pip install 'tritonforge[huggingface]'",
        )
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    hidden = [name for name in _UNWANTED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import transformers
        from transformers.utils import import_utils

        for name in hidden:
            ask = getattr(import_utils, f"is_{name}_available", None)
            if ask is not None:
                ask.cache_clear()
                ask()
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
