"""A PyTorch source as a module, whatever kind of file it came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError, Place
from tritonforge.sources.torch.architecture import make_architecture
from tritonforge.sources.torch.code import make_module
from tritonforge.sources.torch.exported import load_exported
from tritonforge.sources.torch.pickled import load_pickle
from tritonforge.sources.torch.positional import as_positional
from tritonforge.sources.torch.run import run_module
from tritonforge.sources.torch.scripted import load_scripted
from tritonforge.sources.torch.state import load_state, read_state
from tritonforge.sources.torch.user_code import deactivate

if TYPE_CHECKING:
    import torch

MODEL: Final = "model"
WEIGHTS: Final = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def load_module(folder: Path, recipe: Mapping[str, Any]) -> torch.nn.Module:
    """The module of an artifact in ``torch``, on the CPU, in evaluation mode, without gradients.

    ``folder`` has ``model/``, ``code/`` and ``weights/``; ``recipe`` is the artifact's (``build/imports.py`` says what
    is in it). Weights that are made at random are the same every time.

    Raises:
        CheckFailed: the file is of another kind, damaged, or does not fit the module.
        EnvironmentLacks: torch, or the library of an architecture, is not installed.
    """
    try:
        import torch  # noqa: F401 - whether it is there
    except ImportError:
        raise EnvironmentLacks("PyTorch is not installed", hint="pip install 'tritonforge[torch]'") from None
    deactivate()  # what the model before imported is not this one's
    kind = str(recipe["kind"])
    if kind == "huggingface":
        from tritonforge.sources.huggingface.load import load_module as load_huggingface

        network: torch.nn.Module = load_huggingface(folder, recipe)
        return network
    module: torch.nn.Module = _KINDS[kind](folder, recipe)
    for weight in module.parameters():
        weight.requires_grad_(False)
    if kind != "torch-export":  # an exported program was exported in one mode, and has no other
        module.eval()
    return module


def only_file(folder: Path) -> Path:
    """The one file of a source that is a file.

    Raises:
        CheckFailed: there are several, or none.
    """
    files = sorted(path for path in (folder / MODEL).rglob("*") if path.is_file())
    if len(files) != 1:
        raise CheckFailed(
            "the source is not one file",
            expected="one file",
            found=", ".join(path.name for path in files[:5]) or "an empty folder",
        )
    return files[0]


def _torchscript(folder: Path, recipe: Mapping[str, Any]) -> Any:
    file = only_file(folder)
    return _loaded(lambda: load_scripted(file), file, "TorchScript")


def _exported(folder: Path, recipe: Mapping[str, Any]) -> Any:
    import torch

    program = load_program(folder)
    try:
        graph = program.module(check_guards=False)  # the guards are Python that no exporter takes
    except TypeError:  # torch before 2.9 makes no guards
        graph = program.module()
    graph._forward_pre_hooks.clear()  # they hold inputs to the program's bounds, in Python that no tracer takes

    class Program(torch.nn.Module):
        """Takes its inputs by position, as the program was exported."""

        def __init__(self) -> None:
            super().__init__()
            self.graph = graph

        def forward(self, *inputs: Any) -> Any:
            return self.graph(*inputs)

    made = Program()
    made.training = False
    return made


def load_program(folder: Path) -> Any:
    """The ``ExportedProgram`` of a ``.pt2`` source."""
    return load_exported(only_file(folder))


def _module(folder: Path, recipe: Mapping[str, Any]) -> Any:
    module = make_module(folder, str(recipe["module"]), recipe.get("arguments") or {})
    return _with_weights(module, folder, recipe)


def _architecture(folder: Path, recipe: Mapping[str, Any]) -> Any:
    module = make_architecture(str(recipe["architecture"]), recipe.get("arguments") or {})
    return _with_weights(module, folder, recipe)


def _pickled(folder: Path, recipe: Mapping[str, Any]) -> Any:
    return load_pickle(folder, only_file(folder), allowed=bool(recipe.get("allow_pickle")))


def weights_file(folder: Path, recipe: Mapping[str, Any]) -> Path | None:
    """The state dict that goes into a module: the one that is named, or the source where it is one itself."""
    if recipe.get("weights"):
        return folder / str(recipe["weights"])
    files = [path for path in (folder / MODEL).rglob("*") if path.suffix in WEIGHTS] if recipe["module"] else []
    return files[0] if len(files) == 1 else None


def _with_weights(module: Any, folder: Path, recipe: Mapping[str, Any]) -> Any:
    file = weights_file(folder, recipe)
    if file is not None:
        state = read_state(file, key=recipe.get("state_key"), allow_pickle=bool(recipe.get("allow_pickle")))
        load_state(module, state, strict=bool(recipe.get("strict", True)), place=Place(file))
    return module


def _loaded(load: Callable[[], Any], file: Path, what: str) -> Any:
    try:
        return load()
    except ForgeError:
        raise
    except Exception as error:  # torch raises whatever its readers raise
        from tritonforge.sources.formats import detect

        found = detect(file)
        raise CheckFailed(
            f"{file.name} cannot be loaded as {what}",
            place=Place(file),
            found=" ".join(str(error).split())[:300],
            hint=f"it looks like '{found}': say so with `format:`" if found else "is the file whole?",
        ) from None


_KINDS: Final[Mapping[str, Callable[[Path, Mapping[str, Any]], Any]]] = {
    "torchscript": _torchscript,
    "torch-export": _exported,
    "torch-module": _module,
    "torch-pickle": _pickled,
    "architecture": _architecture,
}

__all__ = ["as_positional", "load_module", "load_program", "only_file", "run_module", "weights_file"]
