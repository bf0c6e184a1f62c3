"""What is publicly known to be wrong with a release of Triton, so that a rollout can say it before it serves.

The data is ``advisories.yaml``: NVIDIA's security bulletins, with the first container release that has each fix.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from tritonforge.errors import CheckFailed, InternalError, Place, UsageError

Severity = Literal["critical", "high", "medium", "low"]

_BULLETIN: Final = "https://nvidia.custhelp.com/app/answers/detail/a_id/"
_FILE: Final = Path(__file__).with_name("advisories.yaml")
_BACKENDS: Final = frozenset({"python", "dali", "tensorrt"})
_PARTS: Final = _BACKENDS | {"server", "model-control", "http", "sagemaker", "mlflow"}


@dataclass(frozen=True, slots=True)
class Advisory:
    """One vulnerability. ``fixed`` and ``since`` are container releases (``YY.MM``); ``score`` is CVSS 3.1's.

    ``part`` is what is vulnerable: ``server``, or something that a server may do without.
    """

    cve: str
    severity: Severity
    score: float
    fixed: str
    since: str | None
    part: str
    what: str
    source: str
    date: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def known_issues(
    triton: str,
    *,
    model_control: str = "none",
    http: bool = True,
    backends: Collection[str] | None = None,
    others: Collection[str] = (),
) -> list[Advisory]:
    """What is known of a container release (``24.10``) that is served in this way, the worst first.

    ``backends`` are those that its models use; None is any. Where the server loads models on request (``explicit``)
    every backend that it has can be reached. ``others`` are further parts in use: ``sagemaker``, ``mlflow``.

    Raises:
        UsageError: ``triton`` is no container release.
    """
    number = _number(triton)
    in_use = {"server", *others}
    if http:
        in_use.add("http")
    if model_control == "explicit":
        in_use.add("model-control")
    in_use |= _BACKENDS if backends is None or model_control == "explicit" else _BACKENDS & set(backends)
    found = [
        item
        for item in advisories()
        if item.part in in_use
        and number < _number(item.fixed)
        and (item.since is None or number >= _number(item.since))
    ]
    return sorted(found, key=lambda item: (-item.score, item.cve))


def fixed_in(issues: Sequence[Advisory]) -> str | None:
    """The first container release without any of these; None where there are none."""
    return max((item.fixed for item in issues), key=_number, default=None)


def summary(issues: Sequence[Advisory], triton: str) -> str | None:
    """One line for people; None where nothing is known."""
    if not issues:
        return None
    counts: dict[str, int] = {}
    for item in issues:
        counts[item.severity] = counts.get(item.severity, 0) + 1
    how_many = ", ".join(f"{count} {severity}" for severity, count in counts.items())
    worst = ", ".join(item.cve for item in issues[:3]) + (", …" if len(issues) > 3 else "")
    return f"Triton {triton} has known vulnerabilities ({how_many}: {worst}); {fixed_in(issues)} has none of them"


def require_minimum(triton: str, minimum: str | None, *, target: str, place: Place | None = None) -> None:
    """Refuse a Triton that is older than a target's ``minimum_triton``.

    Raises:
        CheckFailed: it is older.
    """
    if minimum is not None and _number(triton) < _number(minimum):
        raise CheckFailed(
            f"the target '{target}' takes no Triton that old",
            place=place,
            expected=f"{minimum} or newer (`minimum_triton`)",
            found=triton,
            hint="build for a newer `triton` in the platform, and serve it with that image",
        )


@functools.cache
def advisories() -> tuple[Advisory, ...]:
    """All of them, in the order of the file."""
    document = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    found = []
    for bulletin in document["bulletins"]:
        for issue in bulletin["issues"]:
            part = issue.get("part", "server")
            if part not in _PARTS:
                raise InternalError(f"unknown part '{part}' in {_FILE.name}")
            found.append(
                Advisory(
                    cve=issue["cve"],
                    severity=issue["severity"],
                    score=float(issue["score"]),
                    fixed=issue["fixed"],
                    since=issue.get("since"),
                    part=part,
                    what=issue["what"],
                    source=f"{_BULLETIN}{bulletin['number']}",
                    date=str(bulletin["date"]),
                )
            )
    return tuple(found)


def _number(triton: str) -> tuple[int, int]:
    year, dot, month = triton.partition(".")
    if not (dot and year.isdecimal() and month.isdecimal() and len(month) == 2):
        raise UsageError(f"'{triton}' is no container release of Triton", expected="YY.MM, such as 24.10")
    return int(year), int(month)
