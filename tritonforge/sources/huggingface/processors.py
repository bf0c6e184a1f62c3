"""A model's tokenizer, image processor or feature extractor, and what of it decides the tensors that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.huggingface.config import architecture, read_json
from tritonforge.sources.huggingface.quiet import import_transformers

MAX_PIXELS: Final = 64_000_000
"""The largest picture that is decoded, in pixels: four times that of a 16-megapixel camera."""

VOCABULARIES: Final = ("tokenizer.json", "vocab.*", "*.model", "merges.txt", "*.tiktoken", "tekken.json", "spiece.*")
"""Files of which a tokenizer has at least one."""

_PLAIN: Final = (
    "preprocess",
    "process_image",
    "convert_to_rgb",
    "resize",
    "center_crop",
    "rescale",
    "normalize",
    "pad",
    "_preprocess",
)
"""The methods that make an image processor what it is: one that changes none of them only has other settings."""


def load(folder: Path, part: str) -> Any:
    """The processor that transformers itself would make from the files in ``folder``.

    Raises:
        CheckFailed: there is none, or it needs code of its own.
        EnvironmentLacks: transformers is not installed.
    """
    import_transformers()
    if part == "tokenizer" and not any(next(folder.glob(pattern), None) for pattern in VOCABULARIES):
        # transformers 5 would make an empty one, which takes every word for an unknown one.
        raise CheckFailed(
            "there are no files of a tokenizer",
            place=Place(folder),
            found=", ".join(sorted(path.name for path in folder.iterdir())[:6]),
            expected="tokenizer.json, or a vocabulary",
        )
    try:
        return _class(folder, part).from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except CheckFailed:
        raise
    except Exception as error:  # transformers and tokenizers raise unrelated classes
        raise CheckFailed(
            f"transformers cannot load the {part.replace('-', ' ')}",
            place=Place(folder),
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            expected="tokenizer.json with tokenizer_config.json"
            if part == "tokenizer"
            else "preprocessor_config.json of a processor that comes with transformers",
        ) from None


def _class(folder: Path, part: str) -> Any:
    """The class of a processor; of image processors the one on Pillow, which is all that packaging can follow."""
    import transformers

    if part == "tokenizer":
        return transformers.AutoTokenizer
    if part == "feature-extractor":
        return transformers.AutoFeatureExtractor
    settings = read_json(folder / "preprocessor_config.json")
    settings = settings or read_json(folder / "processor_config.json").get("image_processor") or {}
    # Until transformers 4.25 image processors were called feature extractors; Fast ones came and went since.
    named = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "")
    named = f"{named.removesuffix('Fast').replace('FeatureExtractor', 'ImageProcessor')}Pil"
    found = getattr(transformers, named, None) if named.isidentifier() else None
    if not isinstance(found, type):
        raise CheckFailed(
            "transformers has no such image processor on Pillow",
            place=Place(folder / "preprocessor_config.json"),
            expected="`image_processor_type` with one of transformers' own",
            found=named.removesuffix("Pil") or "none",
        )
    return found


def text_settings(tokenizer: Any, folder: Path, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """How texts become rows of tokens. A tokenizer without a padding token is given its end token for that.

    Raises:
        CheckFailed: it does not run on the `tokenizers` library, or nothing says how long a text may be.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CheckFailed(
            "this tokenizer does not run on the `tokenizers` library",
            place=Place(folder),
            found=type(tokenizer).__name__,
            expected="a tokenizer.json, or what transformers can turn into one",
        )
    config = read_json(folder / "config.json")
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    several = str(architecture(config) or "").startswith("Owl")
    limits = [recipe.get("max_length"), text.get("max_position_embeddings"), text.get("n_positions")]
    # transformers states a huge number where it knows no limit.
    limits.append(tokenizer.model_max_length if tokenizer.model_max_length < 1_000_000 else None)
    known = [int(limit) for limit in limits if isinstance(limit, int)]
    if not known:
        raise CheckFailed(
            "nothing says how long a text may be",
            place=Place(folder / "tokenizer_config.json"),
            expected="`huggingface: {max_length: …}` in the spec",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return {
        "max_length": min(known),
        # The texts that a picture is searched for make one tensor with it, whose width is the network's.
        "padding": "max_length" if several else recipe.get("padding", "longest"),
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "pad_id": int(tokenizer.pad_token_id),
        "pad_type_id": int(getattr(tokenizer, "pad_token_type_id", 0)),
        "outputs": [
            name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names
        ],
        "several": several,
    }


def picture_settings(processor: Any, folder: Path) -> dict[str, Any]:
    """How pictures become pixels.

    Raises:
        CheckFailed: the processor does what the packaged one cannot, or makes pictures of unequal sizes.
    """
    from transformers.image_processing_backends import PilBackend

    kind = type(processor)
    named = kind.__name__.removesuffix("Pil")
    place = Place(folder / "preprocessor_config.json")
    changed = [name for name in _PLAIN if getattr(kind, name, None) is not getattr(PilBackend, name)]
    if named == "ConvNextImageProcessor":
        changed = []
    if changed or processor.do_pad:
        raise CheckFailed(
            f"{named} cannot be packaged",
            place=place,
            expected="a processor that resizes, crops, rescales and normalises, such as those of ViT, DeiT, CLIP, "
            "OWL-ViT, SigLIP, BiT, ResNet and ConvNeXt",
            found=f"its own {', '.join(name.strip('_') for name in changed)}" if changed else "padding",
            hint="write it as a Python model, with its cases in `golden.cases`",
        )
    size = {name: int(value) for name, value in dict(processor.size or {}).items() if value is not None}
    crop = processor.crop_size if processor.do_center_crop else None
    if named == "ConvNextImageProcessor" and size.get("shortest_edge", 0) < 384:
        edge = size["shortest_edge"]
        size, square = {"shortest_edge": int(edge / processor.crop_pct)}, (edge, edge)
    elif named == "ConvNextImageProcessor":
        size, square = {"height": size["shortest_edge"], "width": size["shortest_edge"]}, None
    else:
        square = None
    cut = (int(crop.height), int(crop.width)) if crop else square
    resize = size if processor.do_resize else None
    if resize is not None and set(resize) not in ({"height", "width"}, {"shortest_edge"}):
        raise CheckFailed(
            f"{named} resizes in a way that cannot be packaged",
            place=place,
            expected="`size` with height and width, or with shortest_edge",
            found=", ".join(resize),
        )
    if cut is None and (resize is None or "height" not in resize):
        raise CheckFailed(
            "this processor makes pictures of unequal sizes, which no batch can hold",
            place=place,
            expected="a fixed `size`, or `crop_size`",
            found=f"size {resize}",
        )
    normalize = bool(processor.do_normalize)
    return {
        "resize": resize,
        "resample": int(processor.resample if processor.resample is not None else 2),
        "crop": cut,
        "rescale": float(processor.rescale_factor) if processor.do_rescale else None,
        "mean": _three(processor.image_mean) if normalize else None,
        "std": _three(processor.image_std) if normalize else None,
        "max_pixels": MAX_PIXELS,
    }


def sound_settings(extractor: Any, folder: Path) -> dict[str, Any]:
    """How sound becomes what the network reads.

    Raises:
        CheckFailed: the extractor is of another kind than Whisper's and Wav2Vec2's.
    """
    name = type(extractor).__name__
    shared = {"sampling_rate": int(extractor.sampling_rate), "output": str(extractor.model_input_names[0])}
    if name == "WhisperFeatureExtractor" and not extractor.dither:
        return {
            **shared,
            "kind": "log-mel",
            "samples": int(extractor.n_samples),
            "n_fft": int(extractor.n_fft),
            "hop_length": int(extractor.hop_length),
            "padding_value": float(extractor.padding_value),
        }
    if name == "Wav2Vec2FeatureExtractor":
        return {**shared, "kind": "normalize", "normalize": bool(extractor.do_normalize)}
    raise CheckFailed(
        f"{name} cannot be packaged",
        place=Place(folder / "preprocessor_config.json"),
        expected="WhisperFeatureExtractor without dithering, or Wav2Vec2FeatureExtractor",
        hint="write it as a Python model, with its cases in `golden.cases`",
    )


def _three(values: Any) -> list[float]:
    return [float(values)] * 3 if isinstance(values, (int, float)) else [float(value) for value in values]
