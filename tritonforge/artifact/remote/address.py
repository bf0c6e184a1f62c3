"""Where a remote store is: a URL of an object store or of a folder that several machines see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tritonforge.errors import UsageError, did_you_mean

PROTOCOLS: Final = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "abfs",
    "abfs": "abfs",
    "abfss": "abfss",
    "file": "file",
}
"""What a URL may begin with, and what fsspec calls it."""

PACKAGES: Final = {
    "file": ("fsspec", "tritonforge[remote]"),
    "s3": ("s3fs", "tritonforge[remote]"),
    "gs": ("gcsfs", "gcsfs"),
    "abfs": ("adlfs", "adlfs"),
    "abfss": ("adlfs", "adlfs"),
}
"""The package that talks to each of them, and what to install for it."""

_URL: Final = re.compile(r"([a-z0-9]+)://(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """A remote store; ``protocol`` is fsspec's name, ``path`` what follows it, without a slash at its end."""

    protocol: str
    path: str

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"


def parse_address(url: str) -> Address:
    """An address from its URL.

    Raises:
        UsageError: it is no URL of a store, or it has credentials in it.
    """
    match = _URL.fullmatch(url.strip())
    if match is None or match.group(1) not in PROTOCOLS:
        known = None if match is None else did_you_mean(match.group(1), PROTOCOLS)
        raise UsageError(
            "this is no address of a remote store",
            expected="s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER",
            found=_shown(url),
            hint=known,
        )
    protocol, path = PROTOCOLS[match.group(1)], match.group(2).rstrip("/")
    account = path.split("/", 1)[0]
    if ":" in account or (account.count("@") and protocol in ("s3", "gs")) or "?" in path or "#" in path:
        raise UsageError(
            "the address of a remote store has more in it than a place",
            expected="no credentials and no parameters",
            found=_shown(url),
            hint="credentials come by the usual means of the object store, or by reference in `store.options`",
        )
    if protocol == "file" and not path.startswith("/"):
        raise UsageError("the folder of a file:// address is absolute", expected="file:///FOLDER", found=_shown(url))
    if not path or ".." in path.split("/") or any(not character.isprintable() for character in path):
        raise UsageError("this is no address of a remote store", found=_shown(url))
    return Address(protocol, path)


def _shown(url: str) -> str:
    """An address for a message: what may be a credential in it is left out."""
    text = re.sub(r"//[^/@]*@", "//…@", url.strip())
    text = re.sub(r"//([^/:]*):[^/]*", r"//\1:…", text)
    return re.sub(r"[?#].*", "?…", text, flags=re.DOTALL)[:200]
