"""What a network is for, told from its architecture, and the class of transformers that does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.huggingface.config import architecture
from tritonforge.spec.frameworks.huggingface import Task

TASKS: Final[tuple[str, ...]] = get_args(Task)

_BY_HEAD: Final = (
    ("ForSequenceClassification", "text-classification"),
    ("ForAudioClassification", "audio-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForImageClassification", "image-classification"),
    ("ForCTC", "automatic-speech-recognition"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("Model", "feature-extraction"),
)
"""What a class does, by how its name ends."""

_MAIN: Final = ("input_ids", "pixel_values", "input_features", "input_values")

_AUTO: Final[Mapping[str, tuple[str, ...]]] = {
    "feature-extraction": ("MODEL_MAPPING_NAMES",),
    "text-classification": ("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",),
    "token-classification": ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",),
    "question-answering": ("MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",),
    "image-classification": ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",),
    "zero-shot-object-detection": ("MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES",),
    "audio-classification": ("MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",),
    "automatic-speech-recognition": ("MODEL_FOR_CTC_MAPPING_NAMES", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES"),
    "text-generation": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
    "text-generation-with-past": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
}
"""transformers' tables of classes by model type."""


def class_for(config: Mapping[str, Any], task: str | None, place: Place) -> tuple[Any, str]:
    """The class that loads the weights, and the task; ``task`` is the asked one, None to be told from the class.

    Raises:
        CheckFailed: transformers has no such class, or the task cannot be told or done.
    """
    name = architecture(config)
    own = None if name is None else _class(name)
    told = None if own is None or name is None else task_of(name, main_input(own))
    if task is None and told is None:
        raise CheckFailed(
            "this network's task cannot be told from its architecture",
            place=place,
            expected=f"`huggingface: {{task: …}}` with one of {', '.join(TASKS)}",
            found=_found(config, name, own),
            hint=_own_code(config),
        )
    if own is not None and (task in (None, told) or (task, told) == ("text-generation-with-past", "text-generation")):
        return own, str(task or told)
    assert task is not None
    import importlib

    tables = importlib.import_module("transformers.models.auto.modeling_auto")
    for table in _AUTO[task]:
        names = getattr(tables, table).get(config["model_type"])
        found = None if names is None else _class(names if isinstance(names, str) else names[0])
        if found is not None:
            return found, task
    raise CheckFailed(
        f"transformers has no network of this kind for '{task}'",
        place=place,
        found=_found(config, name, own),
        hint=_own_code(config) or (None if told is None else f"the weights were saved for '{told}'"),
    )


def main_input(network: Any) -> str:
    """What a class reads first, by the parameters of its ``forward`` (``main_input_name`` is not always right)."""
    return next((name for name in parameters(network) if name in _MAIN), "")


def parameters(network: Any) -> list[str]:
    """The names of the arguments of a network's or class's ``forward``."""
    import inspect

    return [name for name in inspect.signature(network.forward).parameters if name != "self"]


def task_of(name: str, main: str) -> str | None:
    """The task of a class, by its name and by what it reads first."""
    sound = main in ("input_values", "input_features")
    if name.startswith("Owl") and name.endswith("ForObjectDetection"):
        return "zero-shot-object-detection"
    if name.endswith("ForConditionalGeneration") and sound:
        return "automatic-speech-recognition"
    for head, task in _BY_HEAD:
        if name.endswith(head):
            return "audio-classification" if sound and task == "text-classification" else task
    return None


def _class(name: str) -> Any:
    """A class of transformers by its name; its module alone is imported."""
    import transformers

    if not name.isidentifier() or name.startswith("_"):
        return None
    found = getattr(transformers, name, None)
    return found if isinstance(found, type) and hasattr(found, "from_pretrained") else None


def _found(config: Mapping[str, Any], name: str | None, own: Any) -> str:
    if name is None:
        return f"model_type {config['model_type']} without `architectures`"
    return name if own is not None else f"{name}, which this transformers does not have"


def _own_code(config: Mapping[str, Any]) -> str | None:
    if not config.get("auto_map"):
        return None
    return (
        "the model brings code of its own, which is not run: give it as a PyTorch source (`torch: {module: …}`), "
        "whose code you name yourself"
    )
