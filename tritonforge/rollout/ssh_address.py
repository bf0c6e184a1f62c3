"""A machine as ssh names it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tritonforge.errors import UsageError

_FORM: Final = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_][\w.-]*)(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class SshAddress:
    """``user`` and ``port`` are None where ssh's own configuration decides."""

    host: str
    user: str | None = None
    port: int | None = None

    @staticmethod
    def parse(text: str) -> SshAddress:
        """Read ``[user@]host[:port]``; an IPv6 address stands in brackets.

        Raises:
            UsageError: it is none, or looks like an option of ssh.
        """
        found = _FORM.fullmatch(text)
        port = int(found["port"]) if found is not None and found["port"] else None
        if found is None or port not in (None, *range(1, 65536)):
            raise UsageError(
                f"'{text}' is no address for ssh", expected="user@host, user@host:port, or a name that ssh knows"
            )
        return SshAddress(found["host"].strip("[]"), found["user"], port)

    def arguments(self) -> list[str]:
        """What ssh is told beside the host."""
        return [
            *(["-l", self.user] if self.user is not None else []),
            *(["-p", str(self.port)] if self.port is not None else []),
        ]
