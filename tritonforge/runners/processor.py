"""Runs a packaged processor's original: transformers' own tokenizer, image processor or feature extractor."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.runner import Tensors
from tritonforge.sources.huggingface.processors import load, text_settings

if TYPE_CHECKING:
    import numpy as np

REFERENCE: Final = "reference"
"""The folder of the artifact with the files that transformers reads; it is not served."""


class ProcessorRunner:
    """A processor of transformers, with what the spec asks of it."""

    def __init__(self, processor: Any, recipe: Mapping[str, Any], signature: Signature, folder: Path) -> None:
        import transformers

        self.title = f"{type(processor).__name__} of transformers {transformers.__version__}"
        self.processor = processor
        self.signature = signature
        self.folder = folder
        self.part = str(recipe["part"])
        self.text = text_settings(processor, folder, recipe) if self.part == "tokenizer" else {}

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See :class:`~tritonforge.runners.runner.Runner`."""
        ways = {"tokenizer": self._texts, "image-processor": self._pictures, "feature-extractor": self._sounds}
        (given,) = inputs.values()
        try:
            found = ways[self.part](given)
        except Exception as error:  # transformers, tokenizers and Pillow raise unrelated classes
            raise CheckFailed(
                f"{type(self.processor).__name__} cannot answer",
                place=Place(self.folder),
                found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            ) from None
        return {tensor.name: found[tensor.name] for tensor in self.signature.outputs}

    def _texts(self, given: np.ndarray[Any, Any]) -> Tensors:
        import numpy as np

        texts = [text.decode() for text in given.reshape(-1).tolist()]
        found = self.processor(
            texts,
            padding=self.text["padding"],
            truncation=True,
            max_length=self.text["max_length"],
            return_tensors="np",
        )
        shape = given.shape if self.text["several"] else given.shape[:1]
        return {
            name: np.asarray(values).astype(np.int64).reshape(*shape, values.shape[-1])
            for name, values in found.items()
        }

    def _pictures(self, given: np.ndarray[Any, Any]) -> Tensors:
        import numpy as np
        from PIL import Image
        from transformers.image_utils import load_image

        pictures = [load_image(Image.open(io.BytesIO(data))) for data in given.reshape(-1).tolist()]
        found = self.processor(images=pictures, return_tensors="np")["pixel_values"]
        return {"pixel_values": np.asarray(found, dtype=np.float32)}

    def _sounds(self, given: np.ndarray[Any, Any]) -> Tensors:
        import numpy as np

        name = self.signature.outputs[0].name
        found = self.processor(list(given), sampling_rate=self.processor.sampling_rate, return_tensors="np")[name]
        return {name: np.asarray(found, dtype=np.float32)}


def open_model(artifact: Artifact, folder: Path, *, threads: int, optimise: bool) -> ProcessorRunner:
    """Open the original of a packaged processor."""
    assert artifact.signature is not None
    recipe = artifact.metadata["recipe"]
    files = folder / REFERENCE
    return ProcessorRunner(load(files, recipe["part"]), recipe, artifact.signature, files)
