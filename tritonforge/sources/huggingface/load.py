"""Load a Hugging Face network from its own folder: nothing is fetched, and no code of the model runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonforge.errors import CheckFailed, ForgeError, Place
from tritonforge.sources.huggingface.call import ENCODER_ONLY, Network, call_of
from tritonforge.sources.huggingface.config import MODEL, network_config, weights
from tritonforge.sources.huggingface.quiet import import_transformers
from tritonforge.sources.huggingface.task import class_for

if TYPE_CHECKING:
    from tritonforge.sources.huggingface.module import TaskModule


def load_module(folder: Path, recipe: Mapping[str, Any]) -> TaskModule:
    """The network of ``folder/model`` for its task, in evaluation mode.

    ``recipe`` has the spec's ``huggingface`` settings; ``inputs`` in it (as the spec states them) give the sizes of
    pictures and sounds that the configuration does not.

    Raises:
        CheckFailed: it is no network of transformers, its task is unknown, weights are missing or do not fit, or it
            wants code that does not come with transformers.
        EnvironmentLacks: transformers is not installed.
    """
    import_transformers()
    import torch

    from tritonforge.sources.huggingface.module import TaskModule

    files = folder / MODEL
    place = Place(files / "config.json")
    config = network_config(files)
    safe = weights(files)
    network, task = class_for(config, recipe.get("task"), place)
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[recipe.get("dtype", "fp32")]
    model = _loaded(network, files, safe, dtype, place).eval()
    if task in ENCODER_ONLY and getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    return TaskModule(model.requires_grad_(False), call_of(Network(model, files, task, recipe))).eval()


def _loaded(network: Any, files: Path, safe: bool, dtype: Any, place: Place) -> Any:
    settings: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": safe,
        "weights_only": True,
        "dtype": dtype,
        "attn_implementation": "sdpa" if getattr(network, "_supports_sdpa", False) else "eager",
        "output_loading_info": True,
    }
    try:
        model, found = network.from_pretrained(str(files), **settings)
        if _only_pooler(found["missing_keys"]):
            # Weights that were saved without the pooler (for masked tokens, say) are whole for everything else.
            model, found = network.from_pretrained(str(files), add_pooling_layer=False, **settings)
    except ForgeError:
        raise
    except Exception as error:  # transformers, safetensors and torch raise unrelated classes
        raise CheckFailed(
            f"transformers cannot load the model as {network.__name__}",
            place=place,
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
            hint="load it with `from_pretrained` and save it again with `save_pretrained`",
        ) from None
    missing, other = sorted(found["missing_keys"]), sorted(map(str, found["mismatched_keys"]))
    if missing or other:
        raise CheckFailed(
            f"the weights are not those of {network.__name__}",
            place=place,
            expected="every weight of the network in the file",
            found="; ".join(
                f"{what}: {len(names)}, such as {names[0]}"
                for what, names in (("missing", missing), ("of another shape", other))
                if names
            ),
            hint="missing weights would be drawn at random: check `huggingface.task`, or give the fine-tuned model",
        )
    return model


def _only_pooler(missing: Any) -> bool:
    return bool(missing) and all("pooler." in str(name) for name in missing)
