"""Which folders of a model are versions, as Triton reads their names."""

from __future__ import annotations

import pytest

from tritonforge.errors import Place, SpecError
from tritonforge.sources.model_folder import ModelFolder, read_folder


def read(*files: str, empty: tuple[str, ...] = ()) -> ModelFolder:
    folders = {path.split("/")[0] for path in files if "/" in path} | set(empty)
    return read_folder(files, folders, Place())


def test_versions_are_folders_with_numbers_and_the_rest_lies_beside() -> None:
    found = read("config.pbtxt", "10/model.onnx", "2/a/b", "labels.txt", "7", "assets/1/x", "01/y", empty=("3",))
    assert found.config
    assert dict(found.versions) == {2: ("a/b",), 3: (), 10: ("model.onnx",)}
    assert list(found.versions) == [2, 3, 10]
    assert found.beside == ("01/y", "7", "assets/1/x", "labels.txt")


@pytest.mark.parametrize("name", ["0", "-1", "+2", "2.tmp", "1_old", " 3", "9" * 20, "2-staging", "1e3"])
def test_a_name_that_triton_takes_for_a_number_must_be_one(name: str) -> None:
    with pytest.raises(SpecError, match="as a version"):
        read(f"{name}/model.onnx", "1/model.onnx")


@pytest.mark.parametrize("name", ["v1", "00", "012", "warmup", "_1", ".1", "٣", "e1"])
def test_other_names_are_no_versions(name: str) -> None:
    assert list(read(f"{name}/file", "1/model.onnx").versions) == [1]


def test_the_config_is_a_file() -> None:
    with pytest.raises(SpecError, match=r"config\.pbtxt is a folder"):
        read("config.pbtxt/x", "1/model.onnx")
