from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.errors import CheckFailed
from tritonforge.sources.python_model import MAX_BYTES, check_interface

GOOD = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


def written(folder: Path, text: str) -> Path:
    (folder / "model.py").write_text(text)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "class TritonPythonModel:\n    async def execute(self, requests): ...\n",
        "class TritonPythonModel:\n    def execute(self, requests, extra=None): ...\n",
        "class TritonPythonModel:\n    def execute(self, *requests): ...\n",
        GOOD + "    def initialize(self, args): ...\n    def finalize(self): ...\n",
        GOOD + "    @staticmethod\n    def auto_complete_config(auto_complete_model_config): ...\n",
        "try:\n    import x\nexcept ImportError:\n    x = None\nelse:\n    y = 1\nif True:\n"
        "    class TritonPythonModel:\n        def execute(self, requests): ...\n",
        "class Base: ...\nclass TritonPythonModel(Base): ...\n",
        "from elsewhere import TritonPythonModel\n",
        "from elsewhere import Model as TritonPythonModel\n",
        "class Mine: ...\nTritonPythonModel = Mine\n",
        "raise SystemExit('nothing is run')\n" + GOOD,
    ],
)
def test_models_that_triton_can_call(tmp_path: Path, text: str) -> None:
    check_interface(written(tmp_path, text))
    check_interface(tmp_path / "model.py")


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("x = 1\n", "no class TritonPythonModel", None),
        ("class TritonModel: ...\n", "no class TritonPythonModel", None),
        ("\nclass TritonPythonModel:\n    x = 1\n", "no method `execute`", 2),
        ("class TritonPythonModel:\n    def execute(self): ...\n", "`execute` does not take", 2),
        ("class TritonPythonModel:\n    def execute(self, requests, more): ...\n", "`execute` does not take", 2),
        ("class TritonPythonModel:\n    def execute(self, requests, *, more): ...\n", "`execute` does not take", 2),
        (GOOD + "    def initialize(self): ...\n", "`initialize` does not take", 4),
        (GOOD + "    def finalize(self, args): ...\n", "`finalize` does not take", 4),
        (GOOD + "    async def initialize(self, args): ...\n", "`initialize` is a coroutine", 4),
        (GOOD + "    def auto_complete_config(self, c): ...\n", "is not static", 4),
        (GOOD + "    @staticmethod\n    def auto_complete_config(): ...\n", "`auto_complete_config` does not take", 5),
        ("def f(:\n", "no valid Python", 1),
        ("x = '\x00'\n", "model.py", None),
    ],
)
def test_models_that_triton_cannot_call(tmp_path: Path, text: str, message: str, line: int | None) -> None:
    with pytest.raises(CheckFailed, match=message) as caught:
        check_interface(written(tmp_path, text))
    assert caught.value.place is not None
    assert caught.value.place.file == tmp_path / "model.py"
    if line is not None:
        assert caught.value.place.line == line


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"there is no model\.py"):
        check_interface(tmp_path)


def test_a_model_may_not_be_huge(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="larger than"):
        check_interface(written(tmp_path, "#" * (MAX_BYTES + 1)))


def test_links_may_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    written(folder, GOOD)
    (folder / "inner").symlink_to("model.py")
    check_interface(folder)
    (folder / "outer").symlink_to("../secret")
    with pytest.raises(CheckFailed, match="leads out of it"):
        check_interface(folder)
