"""Certificates and tokens of a target's proxy: read here by reference, written there, and named nowhere else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from tritonforge.actions.connections import secret_value
from tritonforge.actions.workspace import Workspace
from tritonforge.errors import EnvironmentLacks, Place
from tritonforge.spec.targets.common import ProxySpec

CERTIFICATE = "proxy/tls.pem"
CLIENT_CA = "proxy/client-ca.pem"
TOKENS = "proxy/tokens"


@dataclass(frozen=True, slots=True)
class ProxyFiles:
    """Text by path below the target's root. No text made of this object shows them."""

    texts: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def mark(self) -> str | None:
        """Changes with the files: a proxy reads them only when it starts or is reloaded."""
        if not self.texts:
            return None
        digest = hashlib.sha256()
        for path, text in sorted(self.texts.items()):
            digest.update(hashlib.sha256(path.encode()).digest() + hashlib.sha256(text.encode()).digest())
        return digest.hexdigest()[:16]


def proxy_files(workspace: Workspace, name: str, spec: ProxySpec) -> ProxyFiles:
    """Read what the target's proxy needs.

    Raises:
        EnvironmentLacks: a file or a secret cannot be read.
    """
    place = workspace.loaded.place("targets", name, "proxy")
    folder = workspace.loaded.folder
    texts: dict[str, str] = {}
    if spec.tls is not None:
        certificate = _read(folder / spec.tls.cert, place, "BEGIN CERTIFICATE")
        key = secret_value(spec.tls.key, place, folder)
        if "PRIVATE KEY" not in key:
            raise EnvironmentLacks(
                "the proxy's key is no PEM key", place=place, expected="-----BEGIN … PRIVATE KEY-----"
            )
        texts[CERTIFICATE] = f"{certificate.rstrip()}\n{key.rstrip()}\n"
        if spec.tls.client_ca is not None:
            texts[CLIENT_CA] = _read(folder / spec.tls.client_ca, place, "BEGIN CERTIFICATE")
    if spec.tokens:
        # The proxy gets what it can compare with, not the tokens themselves.
        known = [hashlib.sha256(secret_value(token, place, folder).encode()).hexdigest() for token in spec.tokens]
        texts[TOKENS] = "".join(f"{item}\n" for item in known)
    return ProxyFiles(texts)


def _read(file: Path, place: Place, expected: str) -> str:
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentLacks("cannot read a certificate", place=place, found=f"{file}: {error}") from None
    if expected not in text:
        raise EnvironmentLacks("that is no PEM certificate", place=place, found=str(file))
    return text
