"""The proxy's configuration for compose.yaml as it stands: ``python compose_proxy.py`` writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tritonforge.rollout.haproxy import ProxySettings, proxy_config
from tritonforge.rollout.host import Address

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "templates" / "compose" / "proxy" / "haproxy.cfg"
_HEAD: Final = "# Made of templates/haproxy/haproxy.cfg.j2 for compose.yaml: `python tests/testbed/compose_proxy.py`.\n"


def text() -> str:
    """Blue serves, and green is its spare where it runs."""
    settings = ProxySettings(
        "0.0.0.0:8000",
        "0.0.0.0:8001",
        "0.0.0.0:8002",
        ["unix@/run/control.sock mode 600 level admin"],
        resolvers="127.0.0.11:53",
    )
    slots = {name: Address(name, 8000, 8001, 8002, resolve=True) for name in ("blue", "green")}
    return _HEAD + proxy_config(settings, slots, {"blue": 256, "green": 0})


if __name__ == "__main__":
    FILE.write_text(text())
