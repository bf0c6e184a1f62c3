"""What a finished config is checked for before it is written.

The rules are Triton core's own (``src/model_config_utils.cc``: ``ValidateModelConfig``, ``ValidateInstanceGroup``,
``ValidateModelIOConfig``), asked with the place of each value, and those that only the signature and the platform can
answer: a server would load the model, and then fail its requests.
"""

from __future__ import annotations

from typing import Any

from tritonforge.repository import (
    checks_instances,
    checks_pytorch,
    checks_scheduling,
    checks_sequence,
    checks_tensors,
    checks_warmup,
)
from tritonforge.repository.request import ConfigRequest
from tritonforge.repository.schema import server_version, unknown_fields
from tritonforge.repository.subject import Subject
from tritonforge.repository.tree import Node


def check(request: ConfigRequest, message: Any, tree: Node) -> None:
    """Check a config.

    Raises:
        SpecError: the first thing that is wrong, with the place of the value that says it.
    """
    subject = Subject(request, message, tree)
    check_known(subject)
    _same_backend(subject)
    checks_scheduling.check(subject)
    checks_sequence.check(subject)
    checks_tensors.check(subject)
    checks_instances.check(subject)
    checks_warmup.check(subject)
    checks_pytorch.check(subject)


def check_known(subject: Subject) -> None:
    """Check that the platform's Triton knows every field that is set.

    Raises:
        SpecError: it does not know one of them.
    """
    platform = subject.request.platform
    for field in unknown_fields(subject.message, platform.triton):
        from_template = subject.source(field.at).label.startswith("template ")
        hint = (
            f"write it in the template under `{{% if supports('{field.path}') %}}`"
            if from_template
            else "drop it, or move it under `platforms: NAME: config:` of the model, for a platform that has it"
        )
        version = server_version(platform.triton)
        known = "no release that this tritonforge knows" if field.since == "?" else f"{field.since} and later"
        raise subject.wrong(
            field.at,
            f"the Triton of platform '{platform.name}' does not know `{field.path}`",
            expected=f"a field of Triton {platform.triton}" + ("" if version is None else f" (server {version})"),
            found=f"`{field.path}`, which {known} has ({field.source})",
            hint=hint,
        )


def _same_backend(subject: Subject) -> None:
    request, message = subject.request, subject.message
    ensemble = request.backend == "ensemble"
    if message.backend != ("" if ensemble else request.backend):
        raise subject.wrong(
            ("backend",),
            "`config` changes the backend that the artefact was made for",
            expected="" if ensemble else request.backend,
            found=message.backend,
            hint="say it by the model's own `backend:`",
        )
    if ensemble != (message.platform == "ensemble"):
        raise subject.wrong(
            ("platform",),
            "the `platform` of an ensemble is `ensemble`, and of nothing else",
            expected="ensemble" if ensemble else None,
            found=message.platform,
        )
