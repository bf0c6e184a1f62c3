"""Tests of the chart without a cluster; they need the ``helm`` program."""

from __future__ import annotations

import pytest

from helm.chart import helm_program


@pytest.fixture
def helm() -> str:
    """The program's path."""
    found = helm_program()
    if found is None:
        pytest.skip("there is no `helm` on the path, and HELM does not name one")
    return found
