"""What the tests of reports share: one tiny release on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.repository.release import Release

from .making import document, put_release


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """``split`` → ``net`` as the ensemble ``both``, current on its platform."""
    return put_release(tmp_path / "build" / "local", document())
