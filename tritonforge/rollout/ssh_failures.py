"""What ssh says when it fails, as errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from tritonforge.errors import EnvironmentLacks


class ConnectionLost(EnvironmentLacks):
    """The connection broke while something was under way: whether that was done is unknown."""


def unreached(address: str, said: str, *, timed_out: bool = False) -> EnvironmentLacks:
    """Why there is no connection to ``address``; ``said`` is what ssh wrote on its standard error."""
    for pattern, explain in _CAUSES:
        if re.search(pattern, said, re.IGNORECASE):
            return explain(address, gist(said))
    if timed_out:
        return _silent(address, gist(said))
    return EnvironmentLacks(
        f"ssh cannot connect to {address}",
        found=gist(said) or "it ended without a word",
        hint=f"try it by hand: ssh {_by_hand(address)} true",
    )


def lost(address: str, what: str, said: str) -> ConnectionLost:
    """The connection ended in the middle of ``what``."""
    return ConnectionLost(
        f"the SSH connection to {address} was lost during `{what}`; whether that was done there is unknown",
        found=gist(said) or None,
        hint="run the command again once the machine is reachable: it looks at what is there, and goes on or undoes",
    )


def gist(said: str) -> str:
    """The last lines of ssh's own words that carry the cause, on one line; without frames and warnings."""
    lines = [line.strip() for line in said.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("@", "Warning: Permanently added", "** "))]
    return "; ".join(kept[-3:])[:600]


def _by_hand(address: str) -> str:
    host, colon, port = address.rpartition(":")
    return f"-p {port} {host}" if colon and port.isdigit() and "]" not in port else address


def _changed(address: str, said: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"the host key of {address} is not the one that is known: it was set up anew, or somebody is in between",
        found=said,
        hint=(
            "ask who runs the machine for its key's fingerprint; only if it was set up anew, forget the old key: "
            "ssh-keygen -R HOST (-f FILE with `ssh.known_hosts`), then connect once by hand"
        ),
    )


def _unknown(address: str, said: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"the host key of {address} is not known here",
        found=said,
        hint=(
            f"connect once by hand (ssh {_by_hand(address)}), compare the fingerprint with the machine's own, and "
            "say yes; or name a file that has it: `ssh.known_hosts`"
        ),
    )


def _refused(address: str, said: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"{address} does not accept this user's keys",
        found=said,
        hint=(
            f"allow a key there (ssh-copy-id {_by_hand(address)}), load yours into the agent (ssh-add), or name it: "
            "`ssh.identity`. tritonforge never asks for passwords"
        ),
    )


def _silent(address: str, said: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"{address} cannot be reached",
        found=said or "no answer within the time",
        hint=(
            "is it switched on, is its name and port right, and does its sshd run? A jump host belongs into "
            "~/.ssh/config (ProxyJump), or into the file that `ssh.config` names"
        ),
    )


def _configured(address: str, said: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"ssh does not accept its configuration for {address}",
        found=said,
        hint="correct that file, or name another: `ssh.config`, `ssh.identity`, `ssh.known_hosts`",
    )


_CAUSES: Final[tuple[tuple[str, Callable[[str, str], EnvironmentLacks]], ...]] = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|differs from the key for the IP", _changed),
    (r"Bad owner or permissions|Bad configuration option|terminating, \d+ bad|Can't open user config", _configured),
    (r"UNPROTECTED PRIVATE KEY|invalid format|error in libcrypto|Identity file \S+ not accessible", _configured),
    (r"Host key verification failed|No \S+ host key is known", _unknown),
    (r"Permission denied \(|Too many authentication failures|Authentication failed", _refused),
    (
        r"Connection (refused|timed out|reset|closed)|Operation timed out|No route to host|Network is unreachable|"
        r"Could not resolve hostname|Name or service not known|banner exchange|kex_exchange_identification",
        _silent,
    ),
)
