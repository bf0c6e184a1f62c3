"""Architectures that a library knows by name: torchvision, timm, transformers. Weights never come from the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError, did_you_mean
from tritonforge.sources.torch.code import SEED


def make_architecture(named: str, arguments: Mapping[str, Any]) -> Any:
    """``LIBRARY:NAME`` with its arguments; for transformers, ``arguments.config`` are those of the class's config.

    Raises:
        EnvironmentLacks: the library is not installed, or does not fit the PyTorch that is.
        CheckFailed: it knows no such architecture, or refuses the arguments.
    """
    import torch

    library, _, name = named.partition(":")
    torch.manual_seed(SEED)
    try:
        return _MAKERS[library](name, dict(arguments))
    except ForgeError:
        raise
    except ImportError as error:
        extra = "tritonforge[huggingface]" if library == "transformers" else library
        raise EnvironmentLacks(f"{library} is not installed", found=str(error), hint=f"pip install '{extra}'") from None
    except RuntimeError as error:
        if "operator" in str(error) and "does not exist" in str(error):
            raise EnvironmentLacks(
                f"{library} does not fit the PyTorch that is installed ({torch.__version__})",
                found=str(error),
                hint="install the builds of torch and torchvision that belong together",
            ) from None
        raise _refused(named, error) from None
    except Exception as error:  # each library raises its own
        raise _refused(named, error) from None


def _refused(named: str, error: Exception) -> CheckFailed:
    return CheckFailed(
        f"'{named}' cannot be made with its `arguments`",
        found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
    )


def _torchvision(name: str, arguments: dict[str, Any]) -> Any:
    from torchvision import models

    if name not in models.list_models():
        raise CheckFailed(f"torchvision has no '{name}'", hint=did_you_mean(name, models.list_models()))
    return models.get_model(name, weights=None, **arguments)


def _timm(name: str, arguments: dict[str, Any]) -> Any:
    import timm

    if not timm.is_model(name.split(".", 1)[0]):
        raise CheckFailed(f"timm has no '{name}'", hint=did_you_mean(name, timm.list_models()))
    return timm.create_model(name, pretrained=False, **arguments)


def _transformers(name: str, arguments: dict[str, Any]) -> Any:
    from tritonforge.sources.huggingface.quiet import import_transformers

    import_transformers()
    import transformers

    network = getattr(transformers, name, None)
    if network is None or not hasattr(network, "config_class"):
        known = [item for item in dir(transformers) if "Model" in item or "For" in item]
        raise CheckFailed(f"transformers has no model class '{name}'", hint=did_you_mean(name, known))
    config = network.config_class(**arguments.pop("config", {}))
    return network(config, **arguments)


_MAKERS = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
