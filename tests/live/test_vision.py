"""Pictures through the embedded Triton get the labels that the package's own network gives them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http
from cli.commands import Serving, Workshop
from example_shops import example

from tritonforge.spec.lock import read_lock
from tritonforge.triton.embedded import Runtime

pytest.importorskip("torch")
pytest.importorskip("openvino")
Image = pytest.importorskip("PIL.Image")

pytestmark = [pytest.mark.live, pytest.mark.slow]

SAMPLES = {"clock.png": "analog clock", "daisy.jpg": "daisy", "traffic-light.png": "traffic light"}


@pytest.fixture(scope="module")
def shop(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = example("vision", runtime, tmp_path_factory.mktemp("vision") / "w")
    assert made.build()["new"] is True
    return made


@pytest.fixture(scope="module")
def served(shop: Workshop) -> Iterator[Serving]:
    serving = Serving.start(shop)
    yield serving
    assert serving.stop() == 0


def ask(served: Serving, pictures: list[bytes]) -> list[str]:
    """The likeliest label of each."""
    tensor = tritonclient.http.InferInput("IMAGE", [len(pictures), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(pictures, dtype=object).reshape(-1, 1))
    with tritonclient.http.InferenceServerClient(served.http, network_timeout=60) as client:
        return [row[0].decode() for row in client.infer("vision", [tensor]).as_numpy("LABEL")]


def test_drawn_things_are_recognised(served: Serving, shop: Workshop) -> None:
    pictures = [(shop.folder / "samples" / name).read_bytes() for name in SAMPLES]
    for found, expected in zip(ask(served, pictures), SAMPLES.values(), strict=True):
        assert expected in found


def test_the_size_and_kind_of_a_picture_do_not_matter(served: Serving, shop: Workshop) -> None:
    picture = Image.open(shop.folder / "samples" / "clock.png")
    for size, kind in (((900, 760), "JPEG"), ((130, 110), "PNG"), ((520, 440), "WEBP")):
        data = io.BytesIO()
        picture.resize(size).save(data, kind)
        assert "clock" in ask(served, [data.getvalue()])[0]


def test_all_variants_are_at_parity_and_the_lock_says_which_is_served_and_why(shop: Workshop) -> None:
    evidence = shop.folder / "build" / "local" / "evidence" / "parity" / "network"
    assert len(list(evidence.rglob("*.json"))) == 3
    choice = read_lock(shop.folder / "forge.lock").choices["local"]["network"]
    assert choice.figures["variants"].keys() == {"onnx", "torchscript", "openvino"}
    assert all(entry["p50_ms"] > 0 and entry["cosine"] > 0.9999 for entry in choice.figures["variants"].values())
    release = shop.json("release", "show")["release"]
    (network,) = [entry for entry in release["models"] if entry["folder"] == "network"]
    assert network["label"] == choice.variant


def test_the_release_is_valid(shop: Workshop) -> None:
    result = shop.json("validate")
    assert result["ok"] is True


def test_bytes_that_are_no_picture_are_told_to_their_sender(served: Serving) -> None:
    with pytest.raises(tritonclient.http.InferenceServerException, match="picture 0"):
        ask(served, [b"no picture"])
