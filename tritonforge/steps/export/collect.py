"""``collect``: files as they are, such as labels or warm-up data of a model's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonforge.artifact.artifact import Artifact, Draft, FileEntry, inside
from tritonforge.artifact.linking import place_file
from tritonforge.steps.export.packed_environment import check_environment
from tritonforge.steps.step import Job, Needs


def collected(files: Mapping[str, tuple[str, int]]) -> Artifact:
    """The artifact that :class:`Collect` makes of files, by their paths, given the sha256 and the size of each."""
    return Artifact("files", {path: FileEntry(*content) for path, content in files.items()})


class Collect:
    """Copies its sources to the paths that they are named by.

    ``environment`` in the configuration names one of them that is a packed Python environment, which is looked through.
    """

    name = "collect"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=64 << 20)

    def run(self, job: Job) -> Draft:
        for path, source in job.sources.items():
            place_file(source, inside(job.out, path))
        metadata = {}
        if "environment" in job.config:
            metadata = {"python": check_environment(job.sources[job.config["environment"]])}
        return Draft("files", metadata=metadata)
