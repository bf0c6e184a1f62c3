"""An image of Prometheus laid out like the official one, made of this machine's own programs."""

from __future__ import annotations

from typing import Any, Final

from testbed.program_image import build as build_of_programs

IMAGE: Final = "tritonforge-test/prometheus:2.42"
_MORE: Final = """
RUN mkdir /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]
"""


def build(client: Any, base: str) -> str:
    """Build :data:`IMAGE`, unless it is there and made of the same; skips where this machine has no Prometheus."""
    return build_of_programs(client, base, IMAGE, ["prometheus", "promtool"], _MORE)
