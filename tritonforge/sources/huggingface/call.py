"""How a network is called: its inputs with their shapes and likely values, and the outputs of its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.signature import Dim, Tensor, parse_type
from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.huggingface.config import read_json
from tritonforge.sources.huggingface.task import main_input, parameters

LONGEST_TEXT: Final = 64
"""Tokens in the longest generated text: enough to show that the axis is free, where a model's own limit is slow."""

LONGEST_SOUND: Final = 16_000
"""Samples in the longest generated sound: one second at the usual rate."""

TEXT_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
ENCODER_ONLY: Final = ("feature-extraction", "automatic-speech-recognition")


@dataclass(frozen=True, slots=True)
class Call:
    """``inputs`` have whole shapes, the batch first. ``ranges`` and ``axes`` are what generated values look like."""

    task: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    ranges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    axes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded network with the folder of its files and what the spec says of its inputs."""

    model: Any
    folder: Path
    task: str
    recipe: Mapping[str, Any]

    @property
    def config(self) -> Any:
        """The configuration of the part that reads the inputs."""
        return self.model.config

    def setting(self, *names: str) -> Any:
        """The first of these settings that the configuration has."""
        return next((found for name in names if (found := getattr(self.config, name, None)) is not None), None)


def call_of(network: Network) -> Call:
    """How the network is called for its task.

    Raises:
        CheckFailed: nothing says how large an input is.
    """
    if network.task == "zero-shot-object-detection":
        return _detection(network)
    if network.task == "text-generation-with-past":
        return _with_past(network)
    main = main_input(network.model)
    if main == "input_ids":
        return _text(network)
    inputs = (Tensor(main, "FP32", ("batch", *_dims(network, main))),)
    axes = {"samples": _sound_sizes(network)} if "samples" in inputs[0].shape else {}
    return Call(network.task, inputs, _outputs(network), {}, axes)


def _outputs(network: Network) -> tuple[str, ...]:
    """The outputs of the task, as transformers names them."""
    if network.task == "question-answering":
        return ("start_logits", "end_logits")
    encoder = network.task == "feature-extraction" or (
        network.task == "automatic-speech-recognition" and type(network.model).__name__.endswith("Encoder")
    )
    if not encoder:
        return ("logits",)
    pooled = getattr(network.model, "pooler", None) is not None
    return ("last_hidden_state", "pooler_output") if pooled else ("last_hidden_state",)


def _text(network: Network) -> Call:
    taken = parameters(network.model)
    names = [name for name in TEXT_INPUTS if name in taken and name in _given(network)]
    longest = text_limit(network)
    generation = network.task == "text-generation"
    return Call(
        network.task,
        tuple(Tensor(name, "INT64", ("batch", "sequence")) for name in names),
        _outputs(network),
        _text_ranges(network, names),
        {"sequence": (1, min(longest, LONGEST_TEXT // 2 if generation else LONGEST_TEXT))},
    )


def _given(network: Network) -> tuple[str, ...]:
    """The inputs that the model's tokenizer gives; without one, those that the network has weights for."""
    settings = read_json(network.folder / "tokenizer_config.json")
    stated = settings.get("model_input_names")
    if isinstance(stated, list):
        return tuple(str(name) for name in stated)
    tokenizer = settings.get("tokenizer_class")
    if isinstance(tokenizer, str) and tokenizer.isidentifier() and not tokenizer.startswith("_"):
        import transformers

        for name in (tokenizer, tokenizer.removesuffix("Fast")):
            known = getattr(getattr(transformers, name, None), "model_input_names", None)
            if known:
                return tuple(known)
    return TEXT_INPUTS if (network.setting("type_vocab_size") or 0) > 1 else TEXT_INPUTS[:2]


def _text_ranges(network: Network, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    ranges: dict[str, dict[str, Any]] = {
        "input_ids": {"low": 0, "high": int(network.setting("vocab_size") or 2) - 1},
        "attention_mask": {"mask": True},
        "token_type_ids": {"low": 0, "high": max(1, int(network.setting("type_vocab_size") or 1)) - 1},
    }
    return {name: ranges[name] for name in names}


def text_limit(network: Network) -> int:
    """The longest text, in tokens, that the network has positions for and the spec allows."""
    limits = [network.setting("max_position_embeddings"), network.recipe.get("max_length")]
    for name, layer in network.model.named_modules():
        # RoBERTa's kind counts positions from behind the padding's index (transformers, create_position_ids).
        if name.endswith("position_embeddings") and getattr(layer, "padding_idx", None) is not None:
            limits.append(layer.num_embeddings - layer.padding_idx - 1)
    known = [int(limit) for limit in limits if limit]
    return max(1, min(known, default=LONGEST_TEXT))


def _with_past(network: Network) -> Call:
    """A decoder that is given the keys and values of what it read before.

    The mask covers both the past and the new tokens: its axis is the sum of theirs.
    """
    text = network.config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache: tuple[Dim, ...] = ("batch", int(heads), "past_sequence", int(width))
    names = [name for name in ("input_ids", "attention_mask", "position_ids") if name in parameters(network.model)]
    shapes: dict[str, tuple[Dim, ...]] = {
        "input_ids": ("batch", "sequence"),
        "attention_mask": ("batch", "past_sequence + sequence"),
        "position_ids": ("batch", "sequence"),
    }
    past = [
        Tensor(f"past_key_values.{layer}.{part}", "FP32", cache)
        for layer in range(int(text.num_hidden_layers))
        for part in ("key", "value")
    ]
    limit = text_limit(network)
    longest = max(1, min(limit // 2, LONGEST_TEXT // 4))
    return Call(
        network.task,
        (*(Tensor(name, "INT64", shapes[name]) for name in names), *past),
        ("logits", *(tensor.name.replace("past_key_values", "present") for tensor in past)),
        {
            **_text_ranges(network, [name for name in names if name != "position_ids"]),
            **({"position_ids": {"low": 0, "high": limit - 1}} if "position_ids" in names else {}),
        },
        {"sequence": (1, longest), "past_sequence": (1, longest)},
    )


def _detection(network: Network) -> Call:
    """Pictures, each with its own texts: transformers takes all texts of a batch in one row, which cannot be merged."""
    text, picture = network.config.text_config, network.config.vision_config
    length = int(text.max_position_embeddings)
    return Call(
        network.task,
        (
            Tensor("input_ids", "INT64", ("batch", "queries", length)),
            Tensor("attention_mask", "INT64", ("batch", "queries", length)),
            Tensor("pixel_values", "FP32", ("batch", picture.num_channels, picture.image_size, picture.image_size)),
        ),
        ("logits", "pred_boxes", "text_embeds", "image_embeds"),
        # Token 0 in front marks a query that is only padding: its scores are the smallest number there is.
        {"input_ids": {"low": 1, "high": int(text.vocab_size) - 1}, "attention_mask": {"mask": True}},
        {"queries": (1, 3)},
    )


def _dims(network: Network, name: str) -> tuple[Dim, ...]:
    """The shape of one picture or sound."""
    stated = network.recipe.get("inputs", {}).get(name)
    if stated is not None:
        return parse_type(str(stated["type"]))[1]
    if name == "pixel_values":
        size = _picture_size(network)
        if size is not None:
            return (int(network.setting("num_channels") or 3), *size)
    elif name == "input_features" and network.setting("num_mel_bins") and network.setting("max_source_positions"):
        return (int(network.setting("num_mel_bins")), 2 * int(network.setting("max_source_positions")))
    elif name == "input_values" and network.setting("num_mel_bins") and network.setting("max_length"):
        return (int(network.setting("max_length")), int(network.setting("num_mel_bins")))
    elif name == "input_values":
        return ("samples",)
    raise CheckFailed(
        f"nothing says how large '{name}' is",
        place=Place(network.folder / "config.json"),
        expected=f"`inputs: {{{name}: FP32[…]}}` in the spec",
        found=f"{type(network.model).__name__} without a size in config.json or preprocessor_config.json",
    )


def _picture_size(network: Network) -> tuple[int, int] | None:
    """Height and width, from the network's configuration, else from its image processor's."""
    processor = read_json(network.folder / "preprocessor_config.json")
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    for size in (network.setting("image_size"), cropped, processor.get("size")):
        if isinstance(size, int):
            return size, size
        if isinstance(size, (list, tuple)) and len(size) == 2:
            return int(size[0]), int(size[1])
        if isinstance(size, dict) and {"height", "width"} <= size.keys():
            return int(size["height"]), int(size["width"])
        if isinstance(size, dict) and "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
    return None


def _sound_sizes(network: Network) -> tuple[int, int]:
    """Smallest and largest number of samples: at least two frames of the convolutions in front.

    A convolution of kernel k and stride s that is to give n frames needs (n - 1) s + k samples.
    """
    needed = 2
    kernels, strides = network.setting("conv_kernel") or (), network.setting("conv_stride") or ()
    for kernel, stride in zip(reversed(tuple(kernels)), reversed(tuple(strides)), strict=False):
        needed = (needed - 1) * int(stride) + int(kernel)
    return needed, max(LONGEST_SOUND // 4, 2 * needed)
