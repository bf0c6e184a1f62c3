"""What a step is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tritonforge.artifact.artifact import Artifact, Draft


@dataclass(frozen=True, slots=True)
class Needs:
    """What a step needs to run, and what its result depends on besides its inputs.

    ``memory`` is in bytes; ``tools`` are distributions whose versions enter the key; ``facets`` are the properties of
    the machine that the result is tied to (``processor``, ``gpu``, ``libc``): on one that differs in them it is made
    anew, and never fetched.
    """

    cores: int = 1
    memory: int = 512 << 20
    tools: tuple[str, ...] = ()
    facets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Input:
    """An artifact that a step reads, laid out as files in ``folder`` (read-only)."""

    artifact: Artifact
    folder: Path


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a step: it reads ``inputs`` and ``sources`` and writes below ``out``. What it prints is its log.

    ``sources`` hold just the content that the key was made of: a step may link them, and never writes into them (large
    ones may be the user's own files). What lies below ``kept`` when the step fails stays there for the user (failing
    cases); it is made when it is first asked for.
    """

    config: Mapping[str, Any]
    inputs: Mapping[str, Input]
    sources: Mapping[str, Path]
    out: Path
    kept: Path


class Step(Protocol):
    """A pure function from artifacts and a configuration to one artifact.

    ``version`` goes up when the same inputs would give another result.
    """

    name: str
    version: int

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        """What a run needs, given its configuration and the size of what it reads, which changes its memory alone."""

    def run(self, job: Job) -> Draft:
        """Write the artifact's files below ``job.out`` and describe them.

        Raises:
            ForgeError: with what is wrong and what to do; anything else counts as a defect of the step.
        """
