"""Signatures with a local Ed25519 key, in OpenSSH's format: ``ssh-keygen -Y verify`` checks them without tritonforge.

Format: ``PROTOCOL.sshsig`` of OpenSSH. The namespace keeps a signature of one use from being shown for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks, Place, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAMESPACE: Final = "tritonforge-bundle"
"""For ``ssh-keygen -Y verify -n``."""
MAX_SIGNATURE: Final = 4096
"""Bytes of a signature in its armour; one takes about 300."""
_MAX_KEY_FILE: Final = 1 << 16
_MAGIC: Final = b"SSHSIG"
_KIND: Final = b"ssh-ed25519"
HASH: Final = "sha512"
"""What is signed is a hash of the message, so that a file larger than memory can be signed."""
_HASHES: Final = (b"sha256", b"sha512")
_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_END: Final = "-----END SSH SIGNATURE-----"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key; ``raw`` are its 32 bytes."""

    raw: bytes

    @property
    def blob(self) -> bytes:
        """As OpenSSH writes it."""
        return _string(_KIND) + _string(self.raw)

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` shows it: ``SHA256:…``."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signed, the hash of the message that was signed (for ``hashlib.new``), and the 64 bytes."""

    key: PublicKey
    hash_name: str
    raw: bytes

    def holds(self, digest: bytes) -> bool:
        """Whether it is of the message whose hash is ``digest``.

        Raises:
            EnvironmentLacks: the cryptography package is absent.
        """
        _require()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.key.raw).verify(self.raw, _signed(self.hash_name.encode(), digest))
        except (InvalidSignature, ValueError):
            return False
        return True


def sign(key: Ed25519PrivateKey, digest: bytes) -> bytes:
    """The signature of the message whose SHA-512 is ``digest``, in its armour; equal for equal messages."""
    public = PublicKey(key.public_key().public_bytes_raw())
    raw = key.sign(_signed(HASH.encode(), digest))
    blob = (
        _MAGIC
        + struct.pack(">I", 1)
        + _string(public.blob)
        + _string(NAMESPACE.encode())
        + _string(b"")
        + _string(HASH.encode())
        + _string(_string(_KIND) + _string(raw))
    )
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join([_BEGIN, *lines, _END, ""]).encode()


def parse_signature(data: bytes) -> Signature:
    """A signature from its armour.

    Raises:
        CheckFailed: it is none, of another namespace, or not by an Ed25519 key.
    """
    try:
        lines = data.decode("ascii").strip().splitlines()
        if lines[0] != _BEGIN or lines[-1] != _END:
            raise ValueError("its armour is missing")
        blob = base64.b64decode("".join(lines[1:-1]), validate=True)
        if blob[:6] != _MAGIC or blob[6:10] != struct.pack(">I", 1):
            raise ValueError("it is no SSHSIG of version 1")
        key, namespace, _, hash_name, signature = _strings(blob[10:], 5)
        kind, raw_key = _strings(key, 2)
        kind_again, raw = _strings(signature, 2)
        if kind != _KIND or kind_again != _KIND or len(raw_key) != 32 or len(raw) != 64:
            raise ValueError("it is not by an Ed25519 key")
        if hash_name not in _HASHES:
            raise ValueError("its hash is unknown")
        if namespace != NAMESPACE.encode():
            raise ValueError(f"it was made for another use: {namespace!r}"[:100])
    except (ValueError, IndexError, struct.error, binascii.Error) as error:
        raise CheckFailed("the signature of the bundle is malformed", found=str(error)) from None
    return Signature(PublicKey(raw_key), hash_name.decode(), raw)


def read_private_key(file: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
    """An Ed25519 key from an OpenSSH or PEM file.

    Raises:
        UsageError: the file is absent, no such key, or encrypted and the passphrase is missing or wrong.
        EnvironmentLacks: the cryptography package is absent.
    """
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data = _read(file)
    is_openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    load: Any = serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
    try:
        key = load(data, passphrase)
    except UnsupportedAlgorithm as error:
        hint = "pip install 'tritonforge[bundle]'" if "bcrypt" in str(error) else None
        raise EnvironmentLacks("the key cannot be read here", place=Place(file), found=str(error), hint=hint) from None
    except (TypeError, ValueError) as error:
        said = str(error)
        hint = "keys in OpenSSH's and PEM's formats are read: `ssh-keygen -t ed25519 -f release-key`"
        if passphrase is None and ("assword" in said or "encrypted" in said.lower()):
            hint = "it is encrypted: name the variable with its passphrase by --passphrase-env"
        elif passphrase is not None:
            hint = "is the passphrase right, and the key encrypted at all?"
        raise UsageError("the key cannot be read", place=Place(file), found=said[:200], hint=hint) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(
            "the key is of another kind",
            place=Place(file),
            expected="Ed25519",
            found=type(key).__name__.strip("_"),
            hint="make one: `ssh-keygen -t ed25519 -f release-key`",
        )
    return key


def read_public_keys(file: Path) -> Sequence[PublicKey]:
    """The Ed25519 keys of a file: OpenSSH's public keys, one a line (``allowed_signers`` too), or one PEM.

    Raises:
        UsageError: the file is absent or has none.
        EnvironmentLacks: the cryptography package is absent.
    """
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    data = _read(file)
    if b"PRIVATE KEY" in data:
        raise UsageError("that is a private key", place=Place(file), hint="name the public one, which may be shown")
    keys: list[PublicKey] = []
    try:
        if b"BEGIN PUBLIC KEY" in data:
            pem = serialization.load_pem_public_key(data)
            if isinstance(pem, Ed25519PublicKey):
                keys.append(PublicKey(pem.public_bytes_raw()))
        for line in data.decode().splitlines():
            words = line.split()
            if "ssh-ed25519" in words[:-1] and not line.startswith("#"):
                kind, raw = _strings(base64.b64decode(words[words.index("ssh-ed25519") + 1], validate=True), 2)
                if kind == _KIND and len(raw) == 32:
                    keys.append(PublicKey(raw))
    except (ValueError, UnsupportedAlgorithm, struct.error, binascii.Error) as error:
        raise UsageError("the public key cannot be read", place=Place(file), found=str(error)[:200]) from None
    if not keys:
        raise UsageError("the file has no Ed25519 public key", place=Place(file), hint="it is often called KEY.pub")
    return keys


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        raise UsageError("the key cannot be read", place=Place(file), found=error.strerror) from None
    if len(data) > _MAX_KEY_FILE:
        raise UsageError("that is no key: it is too large", place=Place(file))
    return data


def _require() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise EnvironmentLacks(
            "the package cryptography is not installed, which signs and checks signatures",
            hint="pip install 'tritonforge[bundle]'",
        ) from None


def _signed(hash_name: bytes, digest: bytes) -> bytes:
    return _MAGIC + _string(NAMESPACE.encode()) + _string(b"") + _string(hash_name) + _string(digest)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes, count: int) -> list[bytes]:
    """``count`` strings that ``data`` consists of."""
    found = []
    for _ in range(count):
        (size,) = struct.unpack_from(">I", data)
        if len(data) < 4 + size:
            raise ValueError("it is cut off")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    if data:
        raise ValueError("it goes on after its end")
    return found
