"""HAProxy before a Triton: TLS of a private authority, a client certificate, a bearer token and a header of its own."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tritonforge.triton import ports

PROGRAM = shutil.which("haproxy", path="/usr/sbin:/usr/bin")


@dataclass
class Authority:
    """A certificate authority whose certificates and keys are written into a folder."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        made = self._builder(self.subject, self.key, -1, 5).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        (self.folder / f"{self.name}.pem").write_bytes(_pem(made.sign(self.key, hashes.SHA256())))

    def issue(self, name: str, *, server: bool = False, days: tuple[int, int] = (-1, 5)) -> Path:
        """``NAME.pem`` and ``NAME.key``; valid from and to ``days`` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost" if server else name)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(subject, key, *days).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        file = self.folder / f"{name}.pem"
        file.write_bytes(_pem(builder.sign(self.key, hashes.SHA256())))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.with_suffix(".key").write_bytes(key.private_bytes(*form))
        return file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, since: int, until: int):
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=since))
            .not_valid_after(now + datetime.timedelta(days=until))
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


CONFIG = """\
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-request 10s
{frontends}
"""
FRONTEND = """\
frontend {name}
  bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn {alpn} ca-file {folder}/house.pem verify required
  acl known req.hdr(authorization) -m str "Bearer {token}"
  acl ours req.hdr(x-team) -m str {team}
  http-request return status 401 content-type text/plain lf-string "no: %[req.hdr(authorization)]" unless known
  http-request return status 403 content-type text/plain lf-string "no: %[req.hdr(x-team)]" unless ours
  default_backend {name}
backend {name}
  server triton {target} {proto}
"""


@dataclass
class SecuredProxy:
    """A running HAProxy; ``ports`` are by ``http``, ``grpc``, ``metrics``."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]

    @staticmethod
    def start(folder: Path, targets: dict[str, str], token: str, team: str) -> SecuredProxy:
        """Start it with ``server.pem``, ``server.key`` and ``house.pem`` of ``folder``."""
        assert PROGRAM is not None
        (folder / "both.pem").write_bytes((folder / "server.pem").read_bytes() + (folder / "server.key").read_bytes())
        chosen = {name: ports.free("127.0.0.1") for name in targets}
        parts = [
            FRONTEND.format(
                name=name,
                port=chosen[name],
                folder=folder,
                alpn="h2" if name == "grpc" else "h2,http/1.1",
                token=token,
                team=team,
                target=target,
                proto="proto h2" if name == "grpc" else "",
            )
            for name, target in targets.items()
        ]
        config = folder / "haproxy.cfg"
        config.write_text(CONFIG.format(frontends="".join(parts)))
        process = subprocess.Popen([PROGRAM, "-f", config, "-db"], stderr=(folder / "haproxy.log").open("wb"))
        made = SecuredProxy(process, chosen)
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{chosen['http']}", trust_env=False)
            except httpx.ConnectError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "haproxy.log").read_text()
                time.sleep(0.05)
            except httpx.HTTPError:
                return made  # it speaks TLS there

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
