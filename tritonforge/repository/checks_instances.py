"""Checks of instance groups against the platform. Source: core ``ValidateInstanceGroup``."""

from __future__ import annotations

from typing import Any

from tritonforge.repository.schema import Path_
from tritonforge.repository.subject import Subject


def check(subject: Subject) -> None:
    """Raises SpecError for the first thing that is wrong."""
    for index, group in enumerate(subject.message.instance_group):
        path: Path_ = ("instance_group", index)
        if group.count < 1:
            raise subject.wrong(
                (*path, "count"), "an instance group has no instances", expected="1 or more", found=group.count
            )
        _devices(subject, group, path)
        _profiles(subject, group, path)


def _devices(subject: Subject, group: Any, path: Path_) -> None:
    platform = subject.request.platform
    kind = group.Kind.Name(group.kind)
    if kind == "KIND_GPU" and platform.gpus == 0:
        raise subject.wrong(
            (*path, "kind"),
            f"KIND_GPU on platform '{platform.name}', which has no GPU",
            expected="KIND_CPU",
            found=kind,
            hint="move it under `platforms: NAME: config:` of the model, or give the platform `gpus:`",
        )
    if kind not in ("KIND_GPU", "KIND_AUTO") and group.gpus:
        raise subject.wrong(
            (*path, "gpus"), f"an instance group of {kind} is on no GPU", expected="no gpus", found=list(group.gpus)
        )
    for number, gpu in enumerate(group.gpus):
        if not 0 <= gpu < platform.gpus:
            raise subject.wrong(
                (*path, "gpus", number),
                f"platform '{platform.name}' has no GPU {gpu}",
                expected=f"0 to {platform.gpus - 1}" if platform.gpus else "none: it has no GPU",
                found=gpu,
                hint="`gpus:` of the platform says how many there are",
            )


def _profiles(subject: Subject, group: Any, path: Path_) -> None:
    if not group.profile:
        return
    if subject.request.backend != "tensorrt":
        raise subject.wrong(
            (*path, "profile"),
            "only TensorRT has optimization profiles",
            expected="backend tensorrt",
            found=subject.request.backend,
        )
    for number, profile in enumerate(group.profile):
        if not profile.isdigit():
            raise subject.wrong(
                (*path, "profile", number),
                "a profile is named by its index",
                expected='a number in quotes, such as "0"',
                found=profile,
            )
