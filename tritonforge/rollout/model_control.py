"""Who may load and unload models of a server that clients reach directly: whoever has the target's secret.

Source: ``tritonserver --help`` (24.10): ``--http-restricted-api`` and ``--grpc-restricted-protocol`` want a header with
a value before they answer. The value is an argument of the server, so users of the same machine can see it in the list
of processes; there is no option that reads it from a file.
"""

from __future__ import annotations

from typing import Final

_APIS: Final = "model-repository,logging,trace"
"""What changes a server: its models, and where its log and its traces are written."""


def restricting(header: str, key: str) -> tuple[str, ...]:
    """Triton's arguments that keep these to whoever sends the header."""
    return (f"--http-restricted-api={_APIS}:{header}={key}", f"--grpc-restricted-protocol={_APIS}:{header}={key}")
