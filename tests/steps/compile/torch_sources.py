"""Small PyTorch sources as artifacts, as ``import-torch`` would leave them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from tritonforge.artifact.artifact import Artifact, Draft
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.store import LocalStore

NET = """\
import torch


class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3)


class Plain(Scale):
    def forward(self, x, mask):
        return self.layer(x).relu() * mask, mask.sum(1)


class Named(Scale):
    def forward(self, x, mask):
        assert x.shape[0] == mask.shape[0]
        return {"y": self.layer(x) * mask, "s": mask.sum(1)}


class Branch(Scale):
    def forward(self, x: torch.Tensor, mask: torch.Tensor):
        y = self.layer(x)
        if y.sum() > 0:
            y = -y
        return y * mask, mask.sum(1)


class Size(Scale):
    def forward(self, x: torch.Tensor, mask: torch.Tensor):
        rows = int(x.shape[0])
        return self.layer(x) * mask + torch.zeros(rows, 3), mask.sum(1)


class Stubborn(Scale):
    def forward(self, x, mask):
        count = len([i for i in range(3) if x.max().item() > i])
        return self.layer(x) * mask * count, mask.sum(1)
"""
"""Line 25 is Branch's ``if``; Stubborn has control flow on data that TorchScript cannot read."""

INPUTS = (Tensor("x", "FP32", ("batch", 4)), Tensor("mask", "FP32", ("batch", 3)))
OUTPUTS = (Tensor("y", "FP32", ("batch", 3)), Tensor("s", "FP32", ("batch",)))
SIGNATURE = Signature(INPUTS, OUTPUTS, True)


def module_source(store: LocalStore, name: str, signature: Signature = SIGNATURE) -> Artifact:
    """The class ``name`` of ``NET``."""
    return _committed(store, signature, recipe("torch-module", module=f"net:{name}"), {"model/net.py": NET.encode()})


def torchscript_source(store: LocalStore, data: bytes, signature: Signature = SIGNATURE) -> Artifact:
    """A TorchScript file."""
    return _committed(store, signature, recipe("torchscript"), {"model/net.pt": data})


def recipe(kind: str, **given: Any) -> dict[str, Any]:
    """How a source is loaded, as the build writes it."""
    return {
        "kind": kind,
        "architecture": None,
        "module": None,
        "arguments": {},
        "weights": None,
        "state_key": None,
        "strict": True,
        "allow_pickle": False,
        "sample": {},
        **given,
    }


def _committed(store: LocalStore, signature: Signature, how: dict[str, Any], files: dict[str, bytes]) -> Artifact:
    with store.staging() as staging:
        out: Path = staging / "out"
        for path, data in files.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_bytes(data)
        draft = Draft("torch", signature, {"recipe": how, "notes": []})
        return store.commit(uuid.uuid4().hex * 2, out, draft, facets={}, provenance={})
