from __future__ import annotations

import pytest

from tritonforge.artifact.remote.address import parse_address
from tritonforge.errors import UsageError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("s3a://bucket", "s3://bucket"),
        ("gs://bucket/a/b", "gs://bucket/a/b"),
        ("gcs://bucket/a", "gs://bucket/a"),
        ("az://container/a", "abfs://container/a"),
        ("abfss://container@account.dfs.core.windows.net/a", "abfss://container@account.dfs.core.windows.net/a"),
        (" file:///mnt/team ", "file:///mnt/team"),
    ],
)
def test_places_of_object_stores_and_folders(url: str, address: str) -> None:
    assert str(parse_address(url)) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bucket",
        "s3:bucket",
        "s3://",
        "ftp://a/b",
        "s4://b/c",
        "file://relative/folder",
        "s3://a/../b",
        "s3://a/\x1b[0m",
    ],
)
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"no address of a remote store|folder of a file:// address is absolute"):
        parse_address(url)


@pytest.mark.parametrize(
    "url", ["s3://me:hunter2@bucket/a", "s3://hunter2@bucket", "az://c/a?sig=hunter2", "gs://a#hunter2"]
)
def test_a_credential_in_an_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_address(url)
    assert "hunter2" not in str(raised.value)
    assert "no credentials" in str(raised.value)
