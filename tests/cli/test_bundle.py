"""``release export``, ``verify`` and ``import``, from one site to another."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cli.commands import PROGRAM, Workshop, errors_said

SPEC = "models:\n  good: {source: good.onnx, max_batch_size: 4}\n"


@pytest.fixture
def site(tmp_path: Path) -> Workshop:
    """Another site: the spec is there, and no source of any model."""
    made = Workshop.make(tmp_path / "site")
    made.write(SPEC)
    return made


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``key``, which is encrypted, and ``key.pub``."""
    folder = tmp_path_factory.mktemp("keys")
    key = Ed25519PrivateKey.generate()
    shut = serialization.BestAvailableEncryption(b"open sesame")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    (folder / "key").write_bytes(key.private_bytes(*form, shut))
    shown = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    (folder / "key.pub").write_bytes(key.public_key().public_bytes(*shown))
    return folder


@pytest.fixture(scope="module")
def bundle(first_release: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle of ``good``."""
    file = tmp_path_factory.mktemp("bundle") / "good.tar.zst"
    first_release.json("release", "export", "-o", file)
    return file


def run(workshop: Workshop, fault: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**workshop.environment, "TRITONFORGE_FAULT": fault}
    return subprocess.run(
        [str(PROGRAM), *map(str, words)],
        cwd=workshop.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_release_goes_from_one_site_to_another(built: Workshop, site: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.zst"
    made = built.json("release", "export", "-o", file)
    assert made["release"] == built.current()
    assert (made["size"], made["image"]) == (
        file.stat().st_size,
        {"digest": None, "reference": "nvcr.io/nvidia/tritonserver:24.10-py3"},
    )
    verdict = site.json("release", "verify", file)
    assert (verdict["ok"], verdict["release"], verdict["problems"]) == (True, built.current(), [])
    done = site.json("release", "import", file)
    assert (done["new"], done["release"]) == (True, built.current())
    assert site.releases() == {built.current()}
    assert site.current() is None
    assert site.leftovers() == []
    original = built.folder / "build" / "local" / "releases" / made["release"]
    for path in original.rglob("*"):
        copied = Path(done["path"]) / path.relative_to(original)
        assert path.is_dir() == copied.is_dir()
        assert path.is_dir() or path.read_bytes() == copied.read_bytes()
    shown = site.json("release", "show", made["release"][:8])
    assert shown["digest"] == made["release"]
    assert site.json("release", "import", file)["new"] is False


def test_what_is_said_to_people(built: Workshop, site: Workshop) -> None:
    said = built.run("release", "export")
    digest = (built.current() or "")[:12]
    file = built.folder / f"tiny-local-{digest}.tar.zst"
    assert file.is_file()
    assert f"{file.name}: release {digest}, " in said.out
    assert "not signed" in said.out
    assert "its digest is not known" in said.err
    verified = site.run("release", "verify", file)
    assert verified.code == 0
    assert "is good: tiny, release " in verified.out
    assert "not signed: it is whole, and could be anybody's" in verified.out
    imported = site.run("release", "import", file)
    assert f"release {digest} is here now" in imported.out


def test_a_signed_bundle_with_a_key_that_is_encrypted(
    built: Workshop, site: Workshop, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, signing = tmp_path / "b.tar.zst", ("--sign-key", keys / "key")
    shut = built.run("release", "export", "-o", file, *signing)
    assert (shut.code, errors_said(shut.err)) == (2, 1)
    assert "--passphrase-env" in shut.err
    monkeypatch.setenv("OUR_PASSPHRASE", "open sesame")
    made = built.json("release", "export", "-o", file, *signing, "--passphrase-env", "OUR_PASSPHRASE", "--detached")
    assert made["signature"] == f"{file}.sig"
    verdict = site.json("release", "verify", file, "--key", keys / "key.pub", "--require-signature")
    assert verdict["signature"] == {"signer": made["signer"], "trusted": True}
    assert site.json("release", "import", file, "--key", keys / "key.pub")["new"] is True
    text = b"".join(path.read_bytes() for path in (file, tmp_path / "b.tar.zst.sig"))
    assert b"sesame" not in text


def test_a_bundle_that_is_bad_is_shown_with_what_is_bad(bundle: Path, site: Workshop, tmp_path: Path) -> None:
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.tar.zst").write_bytes(data)
    verdict = site.json("release", "verify", tmp_path / "bad.tar.zst", code=1)
    assert verdict["ok"] is False
    assert verdict["problems"]
    shown = site.run("release", "verify", tmp_path / "bad.tar.zst")
    assert shown.code == 1
    assert "is bad" in shown.out
    refused = site.run("release", "import", tmp_path / "bad.tar.zst")
    assert (refused.code, errors_said(refused.err)) == (1, 1)
    assert "is not to be used" in refused.err
    assert site.releases() == set()


def test_an_unsigned_bundle_where_a_signature_is_asked_for(bundle: Path, site: Workshop, keys: Path) -> None:
    verdict = site.json("release", "verify", bundle, "--require-signature", code=1)
    assert [problem["what"] for problem in verdict["problems"]] == ["the bundle is not signed"]
    assert site.run("release", "import", bundle, "--key", keys / "key.pub").code == 1
    assert site.releases() == set()


@pytest.mark.slow
@pytest.mark.parametrize("words", ["export --detached", "export -o .", "verify absent.tar.zst"])
def test_options_that_do_not_go_together(built: Workshop, words: str) -> None:
    assert built.run("release", *words.split()).code == 2


@pytest.mark.slow
def test_a_place_that_cannot_be_written(built: Workshop) -> None:
    refused = built.run("release", "export", "-o", "/proc/nowhere/b.tar.zst")
    assert (refused.code, errors_said(refused.err)) == (3, 1)


def test_an_export_and_an_import_that_are_killed(built: Workshop, site: Workshop, tmp_path: Path) -> None:
    """One step of each; ``tests/repository/test_bundle_faults.py`` goes through all of them."""
    file = tmp_path / "out" / "b.tar.zst"
    file.parent.mkdir()
    killed = run(built, "bundle.rename", "release", "export", "-o", file)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not file.exists()
    built.json("release", "export", "-o", file)
    assert [path.name for path in file.parent.iterdir()] == ["b.tar.zst"]
    killed = run(site, "import.staged", "release", "import", file)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert all(name.startswith(".") for name in site.releases())
    assert site.json("release", "import", file)["new"] is True
    assert site.releases() == {built.current()}
    assert site.leftovers() == []
