"""``import-python``: a ``model.py`` with its files and requirements as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.linking import place_file
from tritonforge.artifact.signature import Signature
from tritonforge.sources.python_model import check_interface
from tritonforge.steps.step import Job, Needs


class ImportPython:
    """Checks Triton's ``model.py`` interface without running anything, and packs the files.

    The configuration has ``signature`` (as declared in the spec) and ``requirements``, which come after the lines of
    the files' own ``requirements.txt``.
    """

    name = "import-python"
    version = 2

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=128 << 20)

    def run(self, job: Job) -> Draft:
        check_interface(job.sources["model.py"])
        for path, source in job.sources.items():
            place_file(source, inside(job.out, path))
        requirements = list(job.config["requirements"])
        own = []
        if "requirements.txt" in job.sources:
            own = job.sources["requirements.txt"].read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        more = [line for line in requirements if line not in {text.strip() for text in own}]
        if more:
            # A new file: what was copied there may share its bytes.
            target = job.out / "requirements.txt"
            target.unlink(missing_ok=True)
            target.write_text("\n".join([*own, *more]) + "\n", encoding="utf-8", errors="surrogateescape")
        return Draft("python", Signature.from_json(job.config["signature"]), {"requirements": requirements})
