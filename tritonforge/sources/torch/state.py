"""State dicts: read without running what a file holds, and loaded only where every key fits."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place, did_you_mean
from tritonforge.sources.formats import detect
from tritonforge.sources.torch.files import not_expected
from tritonforge.sources.torch.pickled import refuse_pickle

SHOWN: Final = 10
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "module", "ema")
"""Keys under which training programs keep a state dict."""


def read_state(file: Path, *, key: str | None = None, allow_pickle: bool = False) -> Mapping[str, Any]:
    """The tensors of a file by name; ``key`` says where they stand inside it.

    Raises:
        CheckFailed: it is damaged, would run code, has no such key, or holds something else than tensors.
    """
    import torch

    place = Place(file)
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(str(file))
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckFailed(f"{file.name} is no safetensors file", place=place, found=str(error)) from None
    try:
        state = torch.load(str(file), map_location="cpu", weights_only=not allow_pickle, mmap=_is_zip(file))
    except pickle.UnpicklingError:
        raise refuse_pickle(file) from None
    except RuntimeError as error:
        if detect(file) in ("torchscript", "torch-export", "aoti", "onnx", "keras"):
            raise not_expected(file, "a state dict", None) from None
        raise not_expected(file, "a state dict", error) from None
    except Exception as error:  # torch.load raises RuntimeError, EOFError, zipfile's and its own
        raise CheckFailed(
            f"{file.name} cannot be loaded as a state dict",
            place=place,
            found=" ".join(str(error).split())[:300],
            hint="is the file whole?",
        ) from None
    if isinstance(state, torch.nn.Module):
        return state.state_dict()
    for part in () if key is None else [key] if isinstance(state, Mapping) and key in state else key.split("."):
        if not isinstance(state, Mapping) or part not in state:
            known = list(state) if isinstance(state, Mapping) else []
            raise CheckFailed(
                f"{file.name} has nothing under '{key}'", place=place, hint=did_you_mean(part, map(str, known))
            )
        state = state[part]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        inside = [name for name in _WRAPPERS if isinstance(state, Mapping) and isinstance(state.get(name), Mapping)]
        raise CheckFailed(
            f"{file.name} holds no state dict",
            place=place,
            found=", ".join(map(str, list(state)[:SHOWN])) if isinstance(state, Mapping) else type(state).__name__,
            expected="tensors by name",
            hint=f"say `torch.state_key: {inside[0]}`" if inside else None,
        )
    return state


def _is_zip(file: Path) -> bool:
    """Files of the old format cannot be mapped."""
    with file.open("rb") as stream:
        return stream.read(2) == b"PK"


def load_state(module: Any, state: Mapping[str, Any], *, strict: bool, place: Place) -> None:
    """Load a state dict into a module.

    Raises:
        CheckFailed: a key is missing or not known (where ``strict``), or a shape differs; all are listed.
    """
    own = module.state_dict()
    state = {**state, **_shared(own, state)}
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    shapes = [
        f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in state and hasattr(own[name], "shape") and state[name].shape != own[name].shape
    ]
    if shapes or (strict and (missing or unknown)):
        details = [
            f"{what} ({len(names)}): {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}"
            for what, names in (("missing", missing), ("not in the module", unknown), ("another shape", shapes))
            if names
        ]
        raise CheckFailed(
            "the state dict does not fit the module",
            place=place,
            expected=f"the {len(own)} keys of {type(module).__name__}",
            found=f"{len(state)} keys, of which {len(own) - len(missing)} fit",
            details=details,
            hint=_hint(own, state, only_keys=not shapes),
        )
    module.load_state_dict(state, strict=strict, assign=False)


def _shared(own: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Weights that the module ties to one that is in the file: safetensors keeps such a pair once."""
    there = {
        (own[name].data_ptr(), own[name].shape, own[name].stride()): state[name]
        for name in own
        if name in state and hasattr(own[name], "data_ptr") and own[name].numel()
    }
    return {
        name: there[at]
        for name in own
        if name not in state
        and hasattr(own[name], "data_ptr")
        and (at := (own[name].data_ptr(), own[name].shape, own[name].stride())) in there
    }


def _hint(own: Mapping[str, Any], state: Mapping[str, Any], *, only_keys: bool) -> str:
    """A prefix that would make the keys fit is named: DataParallel's ``module.`` is the usual one."""
    for prefix in {name.split(".", 1)[0] + "." for name in state if "." in name}:
        if {name.removeprefix(prefix) for name in state} == set(own):
            return f"every key of the file begins with '{prefix}': save it again without, from the inner module"
    for prefix in {name.split(".", 1)[0] + "." for name in own if "." in name}:
        if {name.removeprefix(prefix) for name in own} == set(state):
            return f"every key of the module begins with '{prefix}': name the inner class, or save the outer one"
    return "is it the right class, with the right `arguments`?" + (
        " `strict: false` loads what fits" if only_keys else ""
    )
