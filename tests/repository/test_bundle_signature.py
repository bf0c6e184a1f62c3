"""Signatures that OpenSSH reads too."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from repository.making_bundle import make_bundle, packed, unpacked
from tritonforge.errors import CheckFailed, UsageError
from tritonforge.repository.bundle import signature_file
from tritonforge.repository.bundle_read import Trust, read_bundle
from tritonforge.repository.bundle_signature import (
    NAMESPACE,
    PublicKey,
    parse_signature,
    read_private_key,
    read_public_keys,
    sign,
)

MESSAGE = hashlib.sha512(b"what is signed").digest()
ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen")
Key = ed25519.Ed25519PrivateKey


@pytest.fixture(scope="module")
def key() -> Key:
    return Key.generate()


@pytest.fixture(scope="module")
def other() -> Key:
    return Key.generate()


def public(key: Key) -> PublicKey:
    return PublicKey(key.public_key().public_bytes_raw())


def private_file(path: Path, key: object, form: str, passphrase: bytes | None = None) -> Path:
    forms = {"openssh": serialization.PrivateFormat.OpenSSH, "pem": serialization.PrivateFormat.PKCS8}
    shut = serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, forms[form], shut))  # type: ignore[attr-defined]
    return path


def public_line(key: Key) -> str:
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*form).decode()


@pytest.mark.parametrize("form", ["openssh", "pem"])
@pytest.mark.parametrize("passphrase", [None, b"secret"])
def test_keys_of_both_formats_are_read(tmp_path: Path, key: Key, form: str, passphrase: bytes | None) -> None:
    read = read_private_key(private_file(tmp_path / "key", key, form, passphrase), passphrase)
    assert sign(read, MESSAGE) == sign(key, MESSAGE)


@pytest.mark.parametrize("form", ["openssh", "pem"])
@pytest.mark.parametrize(
    ("passphrase", "given", "said"),
    [(b"secret", None, "--passphrase-env"), (b"secret", b"wrong", "is the passphrase right")],
)
def test_a_key_that_stays_shut_says_what_to_do(
    tmp_path: Path, key: Key, form: str, passphrase: bytes, given: bytes | None, said: str
) -> None:
    file = private_file(tmp_path / "key", key, form, passphrase)
    with pytest.raises(UsageError, match=said) as caught:
        read_private_key(file, given)
    assert "wrong" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = private_file(tmp_path / "key", ec.generate_private_key(ec.SECP256R1()), "openssh")
    with pytest.raises(UsageError, match="another kind"):
        read_private_key(file, None)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_private_key(tmp_path / "absent", None)
    (tmp_path / "key").write_text("hello")
    with pytest.raises(UsageError, match="cannot be read"):
        read_private_key(tmp_path / "key", None)
    with pytest.raises(UsageError, match="no Ed25519 public key"):
        read_public_keys(tmp_path / "key")


def test_public_keys_are_read_from_lines_and_from_pem(tmp_path: Path, key: Key, other: Key) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# who may sign\n{public_line(key)} me@here\nsomebody {public_line(other)}\n")
    assert list(read_public_keys(file)) == [public(key), public(other)]
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    file.write_bytes(key.public_key().public_bytes(*form))
    assert list(read_public_keys(file)) == [public(key)]


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path, key: Key) -> None:
    with pytest.raises(UsageError, match="private key"):
        read_public_keys(private_file(tmp_path / "key", key, "openssh"))


def test_a_signature_holds_for_its_message_alone(key: Key, other: Key) -> None:
    signature = parse_signature(sign(key, MESSAGE))
    assert signature.key == public(key)
    assert signature.holds(MESSAGE)
    assert not signature.holds(hashlib.sha512(b"something else").digest())
    swapped = parse_signature(sign(other, MESSAGE))
    assert not type(signature)(signature.key, signature.hash_name, swapped.raw).holds(MESSAGE)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:100],
        lambda data: data.replace(b"BEGIN SSH", b"BEGIN PGP"),
        lambda data: data.replace(b"U1NIU0lH", b"U1NIU0lI"),
        lambda data: data.replace(b"-----END", b"AAAA\n-----END"),
    ],
)
def test_a_signature_that_is_malformed_is_told_so(key: Key, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CheckFailed, match="malformed"):
        parse_signature(change(sign(key, MESSAGE)))


@ssh_keygen
def test_openssh_verifies_ours_and_we_verify_openssh(tmp_path: Path, key: Key) -> None:
    (tmp_path / "signers").write_text(f"me {public_line(key)}\n")
    (tmp_path / "sig").write_bytes(sign(key, MESSAGE))
    words = ["ssh-keygen", "-Y", "verify", "-I", "me", "-n", NAMESPACE, "-f", "signers", "-s", "sig"]
    subprocess.run(words, input=b"what is signed", cwd=tmp_path, check=True, capture_output=True)
    assert subprocess.run(words, input=b"what is not", cwd=tmp_path, capture_output=True).returncode != 0
    private = private_file(tmp_path / "key", key, "openssh")
    private.chmod(0o600)
    theirs = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", private],
        input=b"what is signed",
        check=True,
        capture_output=True,
    )
    assert theirs.stdout == sign(key, MESSAGE), "Ed25519 signatures are equal for equal messages"
    (tmp_path / "key.pub").write_text(public_line(key))
    shown = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True)
    assert public(key).fingerprint.encode() in shown.stdout


@ssh_keygen
def test_a_signature_of_another_use_is_refused(tmp_path: Path, key: Key) -> None:
    private = private_file(tmp_path / "key", key, "openssh")
    private.chmod(0o600)
    made = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", private], input=b"x", check=True, capture_output=True
    )
    with pytest.raises(CheckFailed, match="signature of the bundle is malformed") as caught:
        parse_signature(made.stdout)
    assert "another use: b'git'" in str(caught.value)


def test_a_signed_bundle_says_by_whom(tmp_path: Path, key: Key, other: Key) -> None:
    file = make_bundle(tmp_path, key=key)
    assert "manifest.json.sig" in unpacked(file)
    verdict = read_bundle(file)
    assert (verdict.ok, verdict.signer, verdict.trusted) == (True, public(key), None)
    trusting = read_bundle(file, Trust((public(other), public(key))))
    assert (trusting.ok, trusting.trusted) == (True, True)
    refusing = read_bundle(file, Trust((public(other),)))
    assert (refusing.ok, refusing.signer, refusing.trusted) == (False, None, None)
    assert "by another key" in refusing.problems[0].what
    assert refusing.problems[0].found == public(key).fingerprint


@pytest.mark.parametrize("asked", ["key", "any"])
def test_a_bundle_without_a_signature_is_refused_where_one_is_asked_for(tmp_path: Path, key: Key, asked: str) -> None:
    trust = Trust((public(key),)) if asked == "key" else Trust(required=True)
    (tmp_path / "out").mkdir()
    verdict = read_bundle(make_bundle(tmp_path), trust, unpack=tmp_path / "out")
    assert [problem.what for problem in verdict.problems] == ["the bundle is not signed"]
    assert list((tmp_path / "out").iterdir()) == [], "nothing is written before that is settled"


def test_a_manifest_that_was_changed_after_signing_is_refused(tmp_path: Path, key: Key) -> None:
    members = unpacked(make_bundle(tmp_path, key=key))
    members["manifest.json"] = (members["manifest.json"] or b"").replace(b"24.10-py3", b"24.11-py3")
    verdict = read_bundle(packed(tmp_path / "bad.tar.zst", members))
    assert ["does not fit" in problem.what for problem in verdict.problems] == [True]


def test_the_whole_file_can_be_signed_beside_it(tmp_path: Path, key: Key, other: Key) -> None:
    file = make_bundle(tmp_path, key=key, detached=True)
    beside = signature_file(file)
    assert parse_signature(beside.read_bytes()).holds(hashlib.sha512(file.read_bytes()).digest())
    assert read_bundle(file, Trust((public(key),))).ok
    beside.write_bytes(sign(other, hashlib.sha512(file.read_bytes()).digest()))
    assert not read_bundle(file, Trust((public(key),))).ok
    make_bundle(tmp_path, key=key)
    assert not beside.exists(), "what signed the file before does not stand beside another"


def test_a_file_signed_by_hand_counts(tmp_path: Path, key: Key) -> None:
    file = make_bundle(tmp_path)
    signature_file(file).write_bytes(sign(key, hashlib.sha512(file.read_bytes()).digest()))
    assert read_bundle(file, Trust((public(key),), required=True)).ok
