"""An image of HAProxy laid out like the official one, made of this machine's own program."""

from __future__ import annotations

from typing import Any, Final

from testbed.program_image import build as build_of_programs

IMAGE: Final = "tritonforge-test/haproxy:2.6"
_MORE: Final = """
STOPSIGNAL SIGUSR1
USER 99:99
ENTRYPOINT ["haproxy"]
CMD ["-f", "/usr/local/etc/haproxy/haproxy.cfg"]
"""


def build(client: Any, base: str) -> str:
    """Build :data:`IMAGE`, unless it is there and made of the same; skips where this machine has no haproxy."""
    return build_of_programs(client, base, IMAGE, ["haproxy"], _MORE)
