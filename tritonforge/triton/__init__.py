"""A Triton to talk to: where it is, its client, and servers that are started here.

May import only ``errors``, ``durable`` and ``artifact``. Frameworks, docker and tritonclient are imported where they
are used.
"""

from tritonforge.triton.client import Client
from tritonforge.triton.connection import Connection, Tls
from tritonforge.triton.container import ContainerServer
from tritonforge.triton.gpu import cpu_override
from tritonforge.triton.installed import InstalledServer
from tritonforge.triton.launch import Launch
from tritonforge.triton.lifecycle import Program, RunningServer, start
from tritonforge.triton.serverlog import load_failures
from tritonforge.triton.transport import IndexEntry

__all__ = [
    "Client",
    "Connection",
    "ContainerServer",
    "IndexEntry",
    "InstalledServer",
    "Launch",
    "Program",
    "RunningServer",
    "Tls",
    "cpu_override",
    "load_failures",
    "start",
]
