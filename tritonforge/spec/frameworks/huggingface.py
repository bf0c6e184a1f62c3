"""How a Hugging Face source is loaded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tritonforge.spec.strict import Strict

Task = Literal[
    "feature-extraction",
    "text-classification",
    "token-classification",
    "question-answering",
    "image-classification",
    "zero-shot-object-detection",
    "audio-classification",
    "automatic-speech-recognition",
    "text-generation",
    "text-generation-with-past",
]


class HuggingFaceSource(Strict):
    """How a Hugging Face model is loaded, and which part of it this model is."""

    part: Literal["model", "tokenizer", "image-processor", "feature-extractor"] = "model"
    """The network itself, or one of its processors, packaged for the Python backend, so that an ensemble takes raw
    text, image bytes or sound."""
    task: Task | None = None
    """What the network is for, which decides its inputs and outputs; told from `architectures` when absent."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """Longest text in tokens; longer ones are cut. The model's own limit when absent."""
    padding: Literal["longest", "max_length"] = "longest"
    """How a tokenizer pads the texts of one batch."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision that the weights are loaded in."""
