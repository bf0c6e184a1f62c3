"""Small live folders: models that differ by a number, ensembles of them, and routers in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritonforge.repository.pbtxt import parse
from tritonforge.repository.router import Arm, arms_parameter
from tritonforge.rollout.live_folder import LiveFolder, live_folder

TENSORS = """\
max_batch_size: 4
input { name: "X" data_type: TYPE_FP32 dims: [1] }
output { name: "Y" data_type: TYPE_FP32 dims: [1] }
"""


def files(content: str) -> dict[str, dict[str, Any]]:
    """One file, told by its content."""
    return {"model.py": {"sha256": content.ljust(64, "0"), "size": len(content)}}


def model(
    name: str, *versions: int, config: str = "", tensors: str = TENSORS, backend: str = "python", content: str = "a"
) -> LiveFolder:
    """A model; ``config`` are further lines."""
    message = parse(f'name: "{name}"\nbackend: "{backend}"\n{tensors}{config}')
    beside = {"labels.txt": {"sha256": "b" * 64, "size": 1}}
    return live_folder(name, "model", message, {number: files(f"{content}{number}") for number in versions}, beside)


def ensemble(name: str, version: int, steps: Mapping[str, int]) -> LiveFolder:
    """An ensemble of models at versions."""
    text = f'name: "{name}"\nplatform: "ensemble"\n{TENSORS}ensemble_scheduling {{\n'
    for part, number in steps.items():
        text += f'step {{ model_name: "{part}" model_version: {number} }}\n'
    return live_folder(name, "ensemble", parse(text + "}"), {version: {}}, {})


def router(name: str, arms: Sequence[Arm], version: int = 1, config: str = "") -> LiveFolder:
    """A router to arms."""
    message = parse(f'name: "{name}"\nbackend: "python"\n{TENSORS}instance_group {{ count: 4 }}\n{config}')
    message.parameters["arms"].string_value = arms_parameter(arms)
    return live_folder(name, "router", message, {version: files(f"router{version}")}, {})


def layout(*folders: LiveFolder) -> dict[str, LiveFolder]:
    """A live folder of these."""
    return {folder.name: folder for folder in folders}
