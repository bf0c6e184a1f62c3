"""``import-python``: a ``model.py`` with its files and requirements as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.linking import copy_file
from tritonforge.artifact.signature import Signature
from tritonforge.sources.python_model import check_interface
from tritonforge.steps.step import Job, Needs


class ImportPython:
    """Checks Triton's ``model.py`` interface without running anything, and packs the files.

    The configuration has ``signature`` (as declared in the spec) and ``requirements``.
    """

    name = "import-python"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=128 << 20)

    def run(self, job: Job) -> Draft:
        check_interface(job.sources["model.py"])
        for path, source in job.sources.items():
            copy_file(source, inside(job.out, path))
        requirements = list(job.config["requirements"])
        if requirements and "requirements.txt" not in job.sources:
            (job.out / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        return Draft("python", Signature.from_json(job.config["signature"]), {"requirements": requirements})
