"""The bill of materials: valid CycloneDX, equal for equal releases, and complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from repository.making_bundle import FILES, IMAGE, make_release, unpacked
from tritonforge import __version__
from tritonforge.repository.bundle import describe, export_bundle
from tritonforge.repository.bundle_manifest import Image
from tritonforge.repository.sbom import requirement_lines

DIGEST = "sha256:" + "d" * 64


def bill(root: Path, image: Image = IMAGE, **options: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(describe(make_release(root, **options), image)[1])
    return value


def named(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (item for item in found["components"] if item["name"] == name)
    return dict(one)


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {item["name"].removeprefix("tritonforge:"): item["value"] for item in component["properties"]}


def test_it_is_valid_cyclonedx_1_6(tmp_path: Path) -> None:
    text = (
        unpacked(export_bundle(make_release(tmp_path), IMAGE, tmp_path / "b").file)["sbom.cdx.json"] or b""
    ).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert json.loads(text)["specVersion"] == "1.6"


def test_it_is_equal_for_equal_releases_and_tells_no_time(tmp_path: Path) -> None:
    one, two = bill(tmp_path / "one"), bill(tmp_path / "two")
    assert one == two
    assert "timestamp" not in one["metadata"]
    other = bill(tmp_path / "three", files={**FILES, "net/1/model.onnx": b"other"})
    assert other["serialNumber"] != one["serialNumber"]


def test_it_names_the_release_and_who_wrote_it(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    metadata = json.loads(describe(release, IMAGE)[1])["metadata"]
    assert metadata["component"]["name"] == "tiny"
    assert metadata["component"]["hashes"] == [{"alg": "SHA-256", "content": release.digest}]
    (tool,) = metadata["tools"]["components"]
    assert (tool["name"], tool["version"]) == ("tritonforge", __version__)


def test_it_names_every_model_with_its_files_and_its_sources(tmp_path: Path) -> None:
    found = bill(tmp_path)
    net = named(found, "net")
    assert net["type"] == "machine-learning-model"
    assert net["version"] == "1"
    assert properties(net)["artifact"] == "a" * 64
    assert properties(net)["backend"] == "onnxruntime"
    assert {file["name"] for file in net["components"]} == {"config.pbtxt", "1/model.onnx"}
    (source,) = net["pedigree"]["ancestors"]
    assert (source["name"], source["hashes"][0]["content"]) == ("a.onnx", "5" * 64)
    onnx = named(found, "onnx")
    assert (onnx["version"], onnx["scope"]) == ("1.18.0", "excluded"), "it made the model, and does not serve it"


def test_it_names_python_packages_and_who_needs_them(tmp_path: Path) -> None:
    found = bill(tmp_path)
    assert named(found, "numpy")["purl"] == "pkg:pypi/numpy@2.1.0"
    assert named(found, "regex")["purl"] == "pkg:pypi/regex"
    assert properties(named(found, "regex")) == {"requirement": "regex>=2024"}
    needs = {item["ref"]: item.get("dependsOn", []) for item in found["dependencies"]}
    assert needs["model:words/2"] == ["pypi:numpy==2.1.0", "pypi:regex>=2024"]
    assert needs["model:all/3"] == ["model:net/1", "model:words/2"], "an ensemble needs its members"


def test_it_names_the_serving_image(tmp_path: Path) -> None:
    tagged = named(bill(tmp_path / "a"), "nvcr.io/nvidia/tritonserver")
    assert (tagged["type"], tagged["version"]) == ("container", "24.10-py3")
    pinned = bill(tmp_path / "b", Image(reference="registry:5000/triton", digest=DIGEST))
    image = named(pinned, "registry:5000/triton")
    assert image["version"] == DIGEST
    assert image["hashes"] == [{"alg": "SHA-256", "content": "d" * 64}]


def test_what_pip_alone_understands_stands_there_as_it_is_written() -> None:
    text = "numpy  # fast\n\n# only here\n-i https://index\n./wheels/a.whl\nb @ https://me:secret@host/b.whl\n"
    assert requirement_lines(text) == ["numpy", "./wheels/a.whl", "b @ https://host/b.whl"]
