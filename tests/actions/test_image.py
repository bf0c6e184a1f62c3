"""The folder that an image is built from: what every Dockerfile has, whatever the platform and the kind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli.commands import Workshop
from making_onnx import batched_add, save

from tritonforge.actions.image import ImageOptions, Kind, image_context
from tritonforge.actions.workspace import open_workspace
from tritonforge.errors import UsageError

DIGEST = "sha256:" + "d" * 64
PINNED = f"registry.example.com/triton:24.10@{DIGEST}"
SPEC = """\
platforms:
  local: {}
  gpu: {triton: "24.05", processor: x86_64, gpu: sm_80}
  edge: {triton: "25.08", processor: aarch64, gpu: sm_87, jetpack: "6.2"}
  old: {triton: "23.06", processor: aarch64, gpu: sm_72, jetpack: "5.1"}
models:
  plus: {source: plus.onnx, max_batch_size: 4}
  words:
    source: words.py
    inputs: {X: "FP32[4]"}
    outputs: {Y: "FP32[4]"}
    requirements: [numpy, "regex>=2024"]
ensembles:
  over: {inputs: [x], outputs: [y], steps: [{model: plus}]}
server: {memory: {python_shared: 16MiB}}
"""
MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


@pytest.fixture(scope="session")
def built_everywhere(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop.make(tmp_path_factory.mktemp("image") / "w")
    save(made.folder / "plus.onnx", batched_add())
    (made.folder / "words.py").write_text(MODEL)
    made.write(SPEC)
    made.json("build", "--platform", "all")
    return made


@pytest.fixture
def shop(built_everywhere: Workshop, tmp_path: Path) -> Workshop:
    return built_everywhere.copy(tmp_path / "copy")


class Context:
    """A folder that was written, with its Dockerfile as instructions."""

    def __init__(self, shop: Workshop, platform: str, output: Path, **options: object) -> None:
        workspace = open_workspace(shop.folder / "forge.yaml")
        self.made = image_context(workspace, platform, None, ImageOptions(output=output, **options))  # type: ignore[arg-type]
        self.folder = output
        self.text = (output / "Dockerfile").read_text()
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = (line for line in joined.splitlines() if line and not line.startswith("#"))
        self.instructions = [tuple(line.split(maxsplit=1)) for line in lines]

    def all(self, name: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == name]

    @property
    def command(self) -> list[str]:
        (text,) = self.all("CMD")
        return list(json.loads(text))


CASES: list[tuple[str, Kind | None]] = [
    ("local", None),
    ("gpu", None),
    ("edge", None),
    ("local", "release"),
    ("gpu", "release"),
    ("edge", "release"),
]


@pytest.mark.parametrize(("platform", "kind"), CASES)
def test_what_every_dockerfile_keeps_to(shop: Workshop, tmp_path: Path, platform: str, kind: Kind | None) -> None:
    found = Context(shop, platform, tmp_path / "out", kind=kind)
    order = [word for word, _ in found.instructions]
    assert found.all("USER")[-1] == "1000:1000", "not root, and by number, so that Kubernetes can see it"
    assert order.index("CMD") > len(order) - 1 - order[::-1].index("USER"), "nothing becomes root again"
    assert "ADD" not in order, "nothing is fetched from an address"
    assert not re.search(r"https?://", found.text)
    (health,) = found.all("HEALTHCHECK")
    assert health.endswith('CMD ["bash", "/opt/tritonforge/healthcheck.sh"]')
    assert "/v2/health/ready" in (found.folder / "healthcheck.sh").read_text()
    assert "curl" not in health
    assert not any(":latest" in name or ":" not in name for name in map(image_of, found.all("FROM")) if "/" in name)
    assert found.command[:3] == ["tritonserver", "--model-repository=/models", "--model-control-mode=none"]
    assert "--backend-config=python,shm-default-byte-size=16777216" in found.command
    assert found.made.release.digest in " ".join(found.all("LABEL"))
    copied = {name for line in found.all("COPY") if "--from" not in line for name in line.split()[:-1]}
    for name in copied:
        assert (found.folder / name).exists(), f"{name} is copied and not there"
    ignored = (found.folder / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}
    assert "sudo" not in found.text


def image_of(line: str) -> str:
    return line.split()[0].split("@")[0]


@pytest.mark.parametrize("kind", ["gpu", "cpu", "jetson", "release"])
def test_bases_are_pinned_where_the_digest_is_known(shop: Workshop, tmp_path: Path, kind: Kind) -> None:
    pinned = Context(shop, "local", tmp_path / "a", kind=kind, base=PINNED)
    assert all(DIGEST in line for line in pinned.all("FROM") if "/" in line)
    assert pinned.made.pinned
    assert "can be moved" not in pinned.text
    tagged = Context(shop, "local", tmp_path / "b", kind=kind, base="registry.example.com/triton:24.10")
    assert not tagged.made.pinned
    assert "can be moved" in tagged.text


def test_the_platform_decides_the_kind_and_the_base(shop: Workshop, tmp_path: Path) -> None:
    vendor = "nvcr.io/nvidia/tritonserver"
    cpu = Context(shop, "local", tmp_path / "cpu")
    assert (cpu.made.kind, cpu.made.base, cpu.made.minimal) == (
        "cpu",
        f"{vendor}:24.10-py3",
        f"{vendor}:24.10-py3-min",
    )
    gpu = Context(shop, "gpu", tmp_path / "gpu")
    assert (gpu.made.kind, gpu.made.base, gpu.made.minimal) == (
        "gpu",
        f"{vendor}:24.05-py3",
        f"{vendor}:24.05-py3-min",
    )
    edge = Context(shop, "edge", tmp_path / "edge")
    assert (edge.made.kind, edge.made.base, edge.made.minimal) == ("jetson", f"{vendor}:25.08-py3-igpu", None)
    assert "NVIDIA_VISIBLE_DEVICES=void" in " ".join(cpu.all("ENV"))
    assert "NVIDIA_VISIBLE_DEVICES=all" in " ".join(gpu.all("ENV"))


def test_only_the_backends_that_are_needed_stay(shop: Workshop, tmp_path: Path) -> None:
    gpu = Context(shop, "gpu", tmp_path / "gpu")
    assert gpu.made.backends == ("onnxruntime", "python"), "an ensemble needs no folder"
    assert "bash /collect.sh /present /parts onnxruntime python" in gpu.all("RUN")
    edge = Context(shop, "edge", tmp_path / "edge")
    (removing,) = (line for line in edge.all("RUN") if "rm -rf" in line)
    assert "! -name onnxruntime ! -name python -exec rm -rf" in removing


def test_python_packages_are_installed_from_an_index_or_from_a_folder(shop: Workshop, tmp_path: Path) -> None:
    online = Context(shop, "local", tmp_path / "online")
    assert (online.folder / "requirements.txt").read_text() == "numpy\nregex>=2024\n"
    assert "--no-index" not in online.text
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "regex.whl").write_bytes(b"wheel")
    offline = Context(shop, "local", tmp_path / "offline", wheels=tmp_path / "wheels")
    assert "--no-index --find-links /opt/tritonforge/wheels" in offline.text
    assert (offline.folder / "wheels" / "regex.whl").read_bytes() == b"wheel"


def test_a_release_is_baked_in_whole(shop: Workshop, tmp_path: Path) -> None:
    found = Context(shop, "local", tmp_path / "out", kind="release")
    release = found.made.release
    (release.models_folder / "words" / "1" / "__pycache__").mkdir()
    again = Context(shop, "local", tmp_path / "again", kind="release")
    for folder in (found.folder, again.folder):
        here = {path.relative_to(folder / "models") for path in (folder / "models").rglob("*")}
        there = {path.relative_to(release.models_folder) for path in release.models_folder.rglob("*")}
        assert here == there - {Path("words/1/__pycache__")}
        assert (folder / "release.json").read_bytes() == (release.folder / "release.json").read_bytes()
        modes = {path.stat().st_mode & 0o005 for path in (folder / "models").rglob("*") if path.is_dir()}
        assert modes == {0o005}, "whoever serves may look into every folder"
    assert f'org.opencontainers.image.version="{release.digest}"' in found.text


def test_writing_it_again_replaces_it(shop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Context(shop, "local", out, kind="release")
    Context(shop, "local", out, kind="cpu")
    assert not (out / "models").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_folder_of_somebody_else_is_left_alone(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="somebody's"):
        Context(shop, "local", tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("base", ["", "a b", "a\nRUN evil", "-x", "a@sha256:1", "$(x)"])
def test_a_base_that_is_no_image_is_refused(shop: Workshop, tmp_path: Path, base: str) -> None:
    if not base:
        base = " "
    with pytest.raises(UsageError, match="is no image"):
        Context(shop, "local", tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()


def test_a_jetpack_without_an_image_says_what_there_is(shop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no Triton image for JetPack 5\.1") as caught:
        Context(shop, "old", tmp_path / "out")
    assert "--base" in str(caught.value)
    assert Context(shop, "old", tmp_path / "out", base=PINNED).made.kind == "jetson"


def test_a_platform_that_is_no_jetson_gets_no_image_for_one(shop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no Jetson"):
        Context(shop, "local", tmp_path / "out", kind="jetson")


@pytest.mark.slow
def test_the_command(shop: Workshop) -> None:
    made = shop.json("image", "--kind", "release", "--base", PINNED)
    assert (made["kind"], made["base"], made["pinned"], made["image"]) == ("release", PINNED, True, None)
    assert Path(made["folder"]).parent == shop.folder / "build" / "local"
    said = shop.run("image")
    assert "backends: onnxruntime, python" in said.out
    assert "named by its tag alone" in said.err
