"""The software bill of materials of a release: CycloneDX 1.6, JSON, with equal bytes for equal releases.

What clients are served (models, Python packages, the serving image) is required; what made it (sources as pedigree,
tools with the scope ``excluded``) is told apart. A time and a random serial number, which CycloneDX leaves open, would
make equal releases unequal: the serial number is derived from the digest, and there is no time.
Specification: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tritonforge import __version__
from tritonforge.errors import EnvironmentLacks

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_NAMESPACE: Final = uuid.UUID("6f2c1a52-3c39-5c1c-9c63-6a0f8d1f3b1e")
_REQUIREMENTS: Final = "requirements.txt"
MAX_REQUIREMENTS: Final = 1 << 20
"""Bytes of a ``requirements.txt`` that is read."""


@dataclass(frozen=True, slots=True)
class Materials:
    """What a bill is made of. ``document`` is ``release.json``; ``image`` is a reference with its digest or None.

    ``requirements`` are the lines of each model's ``requirements.txt``, and ``members`` the folders that each ensemble
    calls, both by the folder's name.
    """

    digest: str
    document: Mapping[str, Any]
    image: tuple[str, str | None]
    requirements: Mapping[str, Iterable[str]]
    members: Mapping[str, Iterable[str]]


def bill_of_materials(materials: Materials) -> bytes:
    """``sbom.cdx.json`` of a release.

    Raises:
        EnvironmentLacks: the package that writes it is absent.
    """
    try:
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError:
        raise EnvironmentLacks(
            "the package cyclonedx-python-lib is not installed, which writes bills of materials",
            hint="pip install 'tritonforge[bundle]'",
        ) from None

    document, digest = materials.document, materials.digest
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, digest))
    bom.metadata.timestamp = None  # type: ignore[assignment]  # it is optional, and of no release
    bom.metadata.tools.components.add(
        Component(name="tritonforge", version=__version__, type=ComponentType.APPLICATION, bom_ref="tritonforge")
    )
    root = Component(
        name=str(document["name"]),
        version=digest,
        type=ComponentType.APPLICATION,
        bom_ref=f"release:{digest}",
        hashes=[_sha256(digest)],
        properties=_properties(
            {f"platform:{name}": value for name, value in document["platform"].items() if value is not None}
        ),
    )
    bom.metadata.component = root
    image = _image(*materials.image)
    models = {_ref(entry): _model(entry) for entry in document["models"]}
    bom.components.update([image, *models.values()])
    bom.register_dependency(root, [image, *models.values()])

    packages: dict[str, Component] = {}
    for entry in document["models"]:
        needed = [_package(line) for line in materials.requirements.get(entry["folder"], ())]
        needed = [packages.setdefault(str(item.bom_ref), item) for item in needed]
        called = [
            models[_ref(other)]
            for name in materials.members.get(entry["folder"], ())
            for other in document["models"]
            if other["folder"] == name
        ]
        bom.register_dependency(models[_ref(entry)], [*needed, *called])
    bom.components.update([*packages.values(), *_tools(document["models"])])
    return (JsonV1Dot6(bom).output_as_string(indent=1) + "\n").encode()


def requirement_lines(text: str) -> list[str]:
    """The packages that a ``requirements.txt`` names, without comments and options."""
    lines = (line.split(" #", 1)[0].strip() for line in text.splitlines())
    # A user and a password in an address are nobody's business who reads the bill.
    return [re.sub(r"//[^/@\s]+@", "//", line) for line in lines if line and not line.startswith(("#", "-"))]


def is_requirements(path: str) -> bool:
    """Whether a file of a model's folder names the packages that it needs."""
    return path.rsplit("/", 1)[-1] == _REQUIREMENTS


def _ref(entry: Mapping[str, Any]) -> str:
    return f"model:{entry['folder']}/{entry['version']}"


def _model(entry: Mapping[str, Any]) -> Component:
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    ref = _ref(entry)
    files = [
        Component(
            name=path,
            type=ComponentType.FILE,
            bom_ref=f"{ref}:{path}",
            hashes=[_sha256(item["sha256"])],
            properties=_properties({"size": item["size"]}),
        )
        for path, item in sorted(entry["files"].items())
    ]
    sources = {path: sha256 for step in entry["made_from"] for path, sha256 in step["sources"].items()}
    ancestors = [
        Component(name=path, type=ComponentType.FILE, bom_ref=f"{ref}:source:{path}", hashes=[_sha256(sha256)])
        for path, sha256 in sorted(sources.items())
    ]
    told = {name: entry.get(name) for name in ("kind", "backend", "format", "folder", "artifact", "config", "label")}
    told["steps"] = " ".join(step["step"] for step in entry["made_from"])
    return Component(
        name=str(entry["name"]),
        version=str(entry["version"]),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        properties=_properties({name: value for name, value in told.items() if value}),
        components=files,
        pedigree=Pedigree(ancestors=ancestors) if ancestors else None,
    )


def _image(reference: str, digest: str | None) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    name, _, tag = reference.split("@", 1)[0].rpartition(":") if _has_tag(reference) else (reference, "", "")
    return Component(
        name=name,
        version=digest or tag or None,
        type=ComponentType.CONTAINER,
        bom_ref=f"image:{reference}",
        hashes=[_sha256(digest.removeprefix("sha256:"))] if digest else (),
        properties=_properties({"reference": reference}),
    )


def _has_tag(reference: str) -> bool:
    return ":" in reference.split("@", 1)[0].rsplit("/", 1)[-1]


def _package(line: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(line)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        pins = [item.version for item in requirement.specifier if item.operator == "==" and "*" not in item.version]
        version = pins[0] if len(pins) == 1 else None
        purl = None if requirement.url else PackageURL("pypi", name=name, version=version)
    except InvalidRequirement:  # an address or a file: pip knows more forms than the standard
        name, version, purl = line, None, None
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"pypi:{line}",
        purl=purl,
        properties=_properties({"requirement": line}),
    )


def _tools(entries: Iterable[Mapping[str, Any]]) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentScope, ComponentType

    found = {
        (name, str(version))
        for entry in entries
        for step in entry["made_from"]
        for name, version in step["tools"].items()
    }
    return [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            scope=ComponentScope.EXCLUDED,
            bom_ref=f"tool:{name}@{version}",
        )
        for name, version in sorted(found)
    ]


def _sha256(value: str) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=value)


def _properties(values: Mapping[str, object]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=f"tritonforge:{name}", value=str(value)) for name, value in sorted(values.items())]
