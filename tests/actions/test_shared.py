"""The team's store as the environment and the spec name it together."""

from __future__ import annotations

import pytest

from tritonforge.actions.shared import effective
from tritonforge.errors import UsageError
from tritonforge.spec.connection import SecretRef
from tritonforge.spec.store import StoreSpec

SPEC = StoreSpec(
    remote="s3://models/team",
    mode="read-write",
    timeout_s=3,
    options={"secret": {"env": "SECRET"}},
    signing_key=SecretRef(env="TEAM"),
)


def test_without_a_word_from_the_environment_the_spec_counts() -> None:
    assert effective(SPEC, {}) is SPEC
    assert effective(None, {}) is None
    assert effective(None, {"TRITONFORGE_REMOTE_STORE_MODE": "read"}) is None


@pytest.mark.parametrize("value", ["", "off", "OFF"])
def test_the_environment_turns_it_off(value: str) -> None:
    assert effective(SPEC, {"TRITONFORGE_REMOTE_STORE": value}) is None


def test_credentials_of_one_store_do_not_go_to_another() -> None:
    other = effective(SPEC, {"TRITONFORGE_REMOTE_STORE": "s3://elsewhere/team"})
    assert other == StoreSpec(
        remote="s3://elsewhere/team", mode="read-write", timeout_s=3, signing_key=SecretRef(env="TEAM")
    )
    same = effective(SPEC, {"TRITONFORGE_REMOTE_STORE": "s3a://models/team/"})
    assert same is not None
    assert same.options == SPEC.options


def test_the_environment_decides_who_writes() -> None:
    told = {"TRITONFORGE_REMOTE_STORE": "file:///mnt/team", "TRITONFORGE_REMOTE_STORE_MODE": "read-write"}
    assert effective(None, told) == StoreSpec(remote="file:///mnt/team", mode="read-write")
    reader = effective(SPEC, {"TRITONFORGE_REMOTE_STORE_MODE": "read"})
    assert reader is not None
    assert reader.mode == "read"


@pytest.mark.parametrize(
    "environ",
    [{"TRITONFORGE_REMOTE_STORE": "bucket"}, {"TRITONFORGE_REMOTE_STORE_MODE": "write"}],
)
def test_what_the_environment_cannot_mean_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        effective(SPEC, environ)
