"""``package-processor``: a tokenizer, image processor or feature extractor as a model of the Python backend."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.linking import place_file
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.tensors import Case, CaseSet, write_cases
from tritonforge.errors import Place
from tritonforge.runners.processor import REFERENCE
from tritonforge.sources.huggingface.config import MODEL
from tritonforge.sources.huggingface.files import processor_files
from tritonforge.sources.huggingface.processors import load, picture_settings, sound_settings, text_settings
from tritonforge.steps.export.import_onnx import refine
from tritonforge.steps.export.sample_inputs import pictures, texts
from tritonforge.steps.step import Job, Needs

SAMPLES: Final = "samples"
SETTINGS: Final = "processor.json"


@dataclass(frozen=True, slots=True)
class Packaged:
    """What one kind of processor is packaged as; ``samples`` are values of its one input, for one item each."""

    settings: Mapping[str, Any]
    signature: Signature
    packages: tuple[str, ...]
    samples: Mapping[str, bytes] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)


class PackageProcessor:
    """Writes a ``model.py`` that needs neither transformers nor PyTorch, with its settings and pinned requirements.

    The configuration has ``recipe`` (the spec's ``huggingface`` settings), ``inputs`` and ``outputs`` (refinements).
    The files that transformers reads stay in the artifact, for the reference that golden cases come from, and so do
    samples of texts or pictures; neither is served.
    """

    name = "package-processor"
    version = 2

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(512 << 20) + 4 * input_bytes, tools=("transformers", "tokenizers", "pillow", "numpy"))

    def run(self, job: Job) -> Draft:
        recipe = job.config["recipe"]
        own = {path.removeprefix(f"{MODEL}/"): file for path, file in job.sources.items()}
        reference = job.out / REFERENCE
        for name in processor_files(own):
            place_file(own[name], inside(job.out, f"{REFERENCE}/{name}"))
        reference.mkdir(exist_ok=True)
        packaged = _WAYS[recipe["part"]](load(reference, recipe["part"]), reference, recipe, job.out)
        template = Path(__file__).parent / "processors" / recipe["part"].replace("-", "_") / "model.py"
        shutil.copyfile(template, job.out / "model.py")
        _write(job.out / SETTINGS, json.dumps(packaged.settings, indent=1, sort_keys=True))
        requirements = [f"{name}=={importlib.metadata.version(name)}" for name in packaged.packages]
        _write(job.out / "requirements.txt", "\n".join(requirements))
        if packaged.samples:
            _write_samples(job.out / SAMPLES, packaged)
        signature = refine(packaged.signature, job.config["inputs"], job.config["outputs"], Place(reference))
        kept = [*(path for path in job.out.rglob("*") if path.is_file() and path.parent.name in (REFERENCE, SAMPLES))]
        metadata = {
            "recipe": dict(recipe),
            "runner": "processor",
            "requirements": requirements,
            "generation": dict(packaged.generation),
            "not_served": sorted(path.relative_to(job.out).as_posix() for path in kept),
        }
        if packaged.samples:
            metadata["samples"] = SAMPLES
        return Draft("python", signature, metadata)


def _text(tokenizer: Any, folder: Path, recipe: Mapping[str, Any], out: Path) -> Packaged:
    settings = text_settings(tokenizer, folder, recipe)
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    _write(out / "tokenizer.json", backend.to_str())
    several = settings["several"]
    width = settings["max_length"] if settings["padding"] == "max_length" else "sequence"
    rows = ("batch", "queries", width) if several else ("batch", width)
    samples = {name: text for name, text in texts(settings["max_length"]).items() if backend.encode(text.decode()).ids}
    return Packaged(
        settings,
        Signature(
            (Tensor("TEXT", "BYTES", ("batch", "queries") if several else ("batch", 1)),),
            tuple(Tensor(name, "INT64", rows) for name in settings["outputs"]),
            batched=True,
        ),
        ("numpy", "tokenizers"),
        samples,
    )


def _picture(processor: Any, folder: Path, recipe: Mapping[str, Any], out: Path) -> Packaged:
    settings = picture_settings(processor, folder)
    size = settings["crop"] or (settings["resize"]["height"], settings["resize"]["width"])
    return Packaged(
        settings,
        Signature(
            (Tensor("IMAGE", "BYTES", ("batch", 1)),),
            (Tensor("pixel_values", "FP32", ("batch", 3, *size)),),
            batched=True,
        ),
        ("numpy", "pillow"),
        pictures(),
    )


def _sound(extractor: Any, folder: Path, recipe: Mapping[str, Any], out: Path) -> Packaged:
    import numpy as np

    settings = sound_settings(extractor, folder)
    made = Tensor(settings["output"], "FP32", ("batch", "samples"))
    if settings["kind"] == "log-mel":
        np.save(out / "mel_filters.npy", np.asarray(extractor.mel_filters, dtype=np.float64), allow_pickle=False)
        frames = settings["samples"] // settings["hop_length"]
        made = Tensor(settings["output"], "FP32", ("batch", int(extractor.feature_size), frames))
    rate = settings["sampling_rate"]
    return Packaged(
        settings,
        Signature((Tensor("AUDIO", "FP32", ("batch", "samples")),), (made,), batched=True),
        ("numpy",),
        generation={"axes": {"samples": [rate // 40, rate]}, "ranges": {"AUDIO": {"low": -0.5, "high": 0.5}}},
    )


_WAYS: Final = {"tokenizer": _text, "image-processor": _picture, "feature-extractor": _sound}


def _write_samples(folder: Path, packaged: Packaged) -> None:
    import numpy as np

    (tensor,) = packaged.signature.inputs
    cases = []
    for name, data in packaged.samples.items():
        item = np.empty((1,), dtype=object)
        item[0] = data
        cases.append(Case(name, {tensor.name: item}, {}, item=True))
    write_cases(folder, CaseSet("samples", tuple(cases), {tensor.name: tensor.datatype}, None))


def _write(path: Path, text: str) -> None:
    path.write_text(f"{text}\n", encoding="utf-8")
