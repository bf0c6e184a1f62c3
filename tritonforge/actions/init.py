"""``init``: a commented spec to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tritonforge.durable import disk_errors, write_atomic
from tritonforge.errors import UsageError

EXAMPLE: Final = """\
# yaml-language-server: $schema=./forge.schema.json
# `tritonforge spec schema > forge.schema.json` gives editors completion; `docs/spec.md` explains every key.
apiVersion: tritonforge/v1
name: {name}

# What is built for. The first is the default; `tritonforge build --platform all` builds every one.
platforms:
  local: {{}}                  # the embedded Triton: this machine, no Docker, no GPU
  # gpu:
  #   triton: "24.10"         # the container release decides which config fields exist
  #   gpu: sm_80

# What all models have in common; each may say otherwise.
defaults:
  model:
    template: latency         # or default, throughput, edge; or the path of your own template

models:
  {model}:
    source: {source}
    # max_batch_size: 16      # without it the template chooses, for models that can batch
    # simplify: true          # simplify the graph, and compare the result with the source
    # golden:                 # what generated inputs look like; answers are compared at every build
    #   ranges: {{input_ids: {{low: 0, high: 30000}}}}
    #   axes: {{sequence: [1, 128]}}
    # config:                 # any field of Triton's ModelConfig
    #   response_cache: {{enable: true}}

  # A Python-backend model: a model.py (or a folder with one), with what goes in and out of it for one item.
  # tokenizer:
  #   source: tokenizer/
  #   inputs: {{TEXT: "BYTES[1]"}}
  #   outputs: {{input_ids: "INT64[-1]"}}
  #   max_batch_size: 16
  #   requirements: [tokenizers]

# ensembles:
#   text-to-embedding:
#     inputs: [TEXT]
#     outputs: [embedding]
#     steps:                  # tensors are wired by name; `inputs:` and `outputs:` of a step rename them
#       - model: tokenizer
#       - model: {model}

# gates:                      # `tritonforge gate` measures with perf_analyzer
#   interactive:
#     model: {model}
#     concurrency: [1, 4]
#     slo: {{p95_ms: 50, throughput_min: 100}}
"""


def init(folder: Path, *, source: str | None, name: str | None, force: bool, dry_run: bool) -> tuple[Path, str]:
    """Write ``forge.yaml`` into ``folder``; its path and text. An ``.onnx`` file found there becomes the source.

    Raises:
        UsageError: there is a spec already, and ``force`` is not given.
        EnvironmentLacks: the folder cannot be written.
    """
    target = folder / "forge.yaml"
    if target.exists() and not force:
        raise UsageError(f"{target} exists already", hint="--force replaces it")
    found = sorted(path.name for path in folder.glob("*.onnx")) if folder.is_dir() else []
    source = source or (found[0] if found else "model.onnx")
    text = EXAMPLE.format(
        name=_yaml(_name(name or folder.resolve().name)),
        model=_yaml(_name(Path(source).stem)),
        source=_yaml(source),
    )
    if not dry_run:
        with disk_errors("cannot write the spec", target):
            write_atomic(target, text.encode())
    return target, text


def _yaml(text: str) -> str:
    """The text as YAML reads it back; in quotes only where it would read something else."""
    import yaml

    try:
        if yaml.safe_load(f"- {{{text}: 1, source: {text}}}\n- {text}: {text}") == [
            {text: 1, "source": text},
            {text: text},
        ]:
            return text
    except (yaml.YAMLError, ValueError, TypeError):
        pass
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1 << 30)
    return quoted.rstrip("\n")


def _name(text: str) -> str:
    made = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.-") else "-" for letter in text)
    return made.strip("-._") or "model"
