"""A live server for a use case: the embedded Triton, an installed one, a container, or one that somebody runs."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.actions.connections import connection_for
from tritonforge.actions.workspace import Workspace
from tritonforge.durable import disk_errors
from tritonforge.errors import CheckFailed, EnvironmentLacks, SpecError, UsageError
from tritonforge.repository.release import Release
from tritonforge.steps.export.packed_environment import ENVIRONMENT
from tritonforge.triton.client import Client
from tritonforge.triton.connection import Connection

if TYPE_CHECKING:
    from tritonforge.triton.embedded.runtime import Runtime
    from tritonforge.triton.lifecycle import Program, RunningServer

_OWN: Final = ("--strict-readiness=", "--exit-on-error=", "--exit-timeout-secs=")
"""Options of a release that the launch takes as its own fields."""


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """Which server the user asked for; none of them is the embedded one."""

    server: str | None = None
    tritonserver: Path | None = None
    container: str | None = None

    def __post_init__(self) -> None:
        if sum(item is not None for item in (self.server, self.tritonserver, self.container)) > 1:
            raise UsageError("choose one of --server, --tritonserver, --container")

    @property
    def kind(self) -> str:
        """``connection``, ``installed``, ``container`` or ``embedded``."""
        if self.server is not None:
            return "connection"
        if self.tritonserver is not None:
            return "installed"
        return "container" if self.container is not None else "embedded"

    @property
    def identity(self) -> str | None:
        """What evidence of this very server says; None for somebody else's, which may change at any time."""
        if self.kind == "connection":
            return None
        return str(self.tritonserver or self.container or "embedded")


class LiveServer:
    """A server that answers. ``running`` is None for one that somebody else runs."""

    def __init__(self, choice: ServerChoice, client: Client, running: RunningServer | None) -> None:
        self.choice = choice
        self.client = client
        self.running = running

    @property
    def connection(self) -> Connection:
        """Its addresses."""
        return self.client.connection

    def speaks(self, protocol: str) -> bool:
        """Whether the address for ``http`` or ``grpc`` is known."""
        return getattr(self.connection, protocol) is not None

    def load(self, name: str, published: Any) -> bool:
        """Load a model; True when its instances had to be moved to the CPU for that.

        On somebody else's server nothing is loaded: the model must be ready there.

        Raises:
            CheckFailed: it does not load, or is not served; with the server's reason.
        """
        if self.running is None:
            if not self.client.model_ready(name):
                reasons = [entry.reason for entry in self.client.index() if entry.name == name and entry.reason]
                raise CheckFailed(f"'{name}' is not ready at {self.connection.url}", found="; ".join(reasons) or None)
            return False
        from tritonforge.triton.gpu import cpu_override

        override = None if self.choice.kind != "embedded" and has_gpu() else cpu_override(published)
        self.client.load(name, override)
        return override is not None

    def describe(self) -> dict[str, Any]:
        """What the server is, for evidence: its kind, version, and a title for people."""
        version = str(self.client.server_metadata()["version"])
        kind = self.choice.kind
        title = {
            "embedded": f"the embedded Triton {version} (stand-in backends)",
            "installed": f"Triton {version} of this machine",
            "container": f"Triton {version} in {self.choice.container}",
            "connection": f"Triton {version} at {self.connection.url}",
        }[kind]
        return {"kind": kind, "version": version, "title": title, "identity": self.choice.identity}


def same_server(described: Mapping[str, Any], choice: ServerChoice) -> bool:
    """Whether evidence was made on the server that is asked for now; never for one that somebody else runs."""
    return choice.identity is not None and described.get("identity") == choice.identity


def has_gpu() -> bool:
    """Whether the NVIDIA driver shows a GPU on this machine."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


@contextmanager
def open_server(
    workspace: Workspace,
    release: Release,
    choice: ServerChoice,
    *,
    explicit: bool,
    progress: Callable[[str], None] = lambda text: None,
    ports: Mapping[str, int | None] | None = None,
    host: str = "127.0.0.1",
    log: Path | None = None,
) -> Iterator[LiveServer]:
    """The chosen server with this release: started here and stopped afterwards, or connected to.

    ``explicit`` starts it with no model loaded; otherwise it serves all of them.

    Raises:
        EnvironmentLacks: the server cannot be had, started or reached.
        CheckFailed: a model does not load (when it serves all of them).
    """
    if choice.server is not None:
        with somebodys_server(connection_for(workspace, choice.server)) as client:
            yield LiveServer(choice, client, None)
        return
    from tritonforge.triton.launch import Launch
    from tritonforge.triton.lifecycle import start

    program = _program(choice, release, progress)
    if choice.kind == "embedded":
        check_requirements(release)
    arguments = tuple(item for item in release.document["server"]["arguments"] if not item.startswith(_OWN))
    chosen = ports or {}
    readiness = {} if explicit else _readiness(release.document["server"]["arguments"])
    log = log or release.folder.parent.parent / "logs" / "tritonserver.log"
    with disk_errors("cannot write the server's log", log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        log.touch()
    progress("starting the server")
    with _plain_path(release.models_folder) as repository:
        launch = Launch(
            repository=repository if choice.kind == "embedded" else release.models_folder,
            control="explicit" if explicit else "none",
            log_path=log,
            arguments=arguments,
            http=chosen.get("http"),
            grpc=chosen.get("grpc"),
            metrics=chosen.get("metrics"),
            host=host,
            **readiness,
        )
        with start(launch, program) as running, running.client() as client:
            yield LiveServer(choice, client, running)


@contextmanager
def somebodys_server(connection: Connection) -> Iterator[Client]:
    """A client of a server that somebody else runs, which answers at every address that is known of it.

    Raises:
        EnvironmentLacks: it does not answer, or refuses these credentials.
    """
    with Client(connection) as client:
        for protocol in connection.protocols:
            url = connection.over(protocol).url
            try:
                client.server_metadata(protocol=protocol)
            except CheckFailed as error:
                raise EnvironmentLacks(
                    f"what answers at {url} is no Triton", found=error.message, hint="is that its port?"
                ) from None
        yield client


@contextmanager
def _plain_path(folder: Path) -> Iterator[Path]:
    """``folder`` itself, or a link to it where the Python backend could not take its path.

    The backend starts its stubs with ``bash -c "exec STUB MODEL …"``, without quotes, and reads paths as ASCII
    (``python_backend/src/stub_launcher.cc``): with a space in the path each load hangs until it times out.
    """
    if re.fullmatch(r"[\w./+@=,:-]+", str(folder), re.ASCII):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tritonforge-") as scratch:
        link = Path(scratch) / "models"
        link.symlink_to(folder.absolute())
        yield link


def _readiness(arguments: Sequence[str]) -> dict[str, Any]:
    """The release's own readiness and exit settings, as the launch takes them."""
    said = dict(item.split("=", 1) for item in arguments if item.startswith(_OWN))
    settings: dict[str, Any] = {}
    if "--strict-readiness" in said:
        settings["strict_readiness"] = said["--strict-readiness"] == "true"
    if "--exit-on-error" in said:
        settings["exit_on_error"] = said["--exit-on-error"] == "true"
    if "--exit-timeout-secs" in said:
        settings["exit_timeout"] = float(said["--exit-timeout-secs"])
    return settings


def _program(choice: ServerChoice, release: Release, progress: Callable[[str], None]) -> Program:
    if choice.tritonserver is not None:
        from tritonforge.triton.installed import InstalledServer

        return InstalledServer(choice.tritonserver)
    if choice.container is not None:
        from tritonforge.triton.container import ContainerServer
        from tritonforge.triton.engine import connect, have_image

        with closing(connect()) as client:
            have_image(client, choice.container, progress)
        return ContainerServer(choice.container, gpus=has_gpu() and _is_for_gpus(release))
    try:
        return embedded_runtime(progress)
    except EnvironmentLacks as error:
        from tritonforge.triton.embedded.machine import OTHER_WAYS, other_ways

        if error.hint is not None:
            # The image to take instead is the one of this platform's Triton.
            error.hint = error.hint.replace(OTHER_WAYS, other_ways(release.document["platform"]["triton"]))
        raise


def _is_for_gpus(release: Release) -> bool:
    from tritonforge.triton.gpu import cpu_override

    return bool(release.document["platform"]["gpus"]) or any(
        cpu_override(release.config(entry["folder"])) is not None for entry in release.models()
    )


def embedded_runtime(progress: Callable[[str], None] = lambda text: None) -> Runtime:
    """The embedded Triton, installed on first use.

    Raises:
        EnvironmentLacks: it cannot run or be fetched here; the message names the other ways.
    """
    from tritonforge.triton.embedded.install import install

    return install(progress=progress)


def check_requirements(release: Release) -> None:
    """The packages that Python models need must be in this environment: the embedded server runs in it.

    Raises:
        EnvironmentLacks: one is missing or has another version.
    """
    import importlib.metadata

    from packaging.requirements import InvalidRequirement, Requirement

    for entry in release.models():
        file = release.models_folder / entry["folder"] / str(entry["version"]) / "requirements.txt"
        if entry["format"] != "python" or not file.is_file():
            continue
        if (release.models_folder / entry["folder"] / ENVIRONMENT).is_file():
            continue  # it brings its own packages
        for line in file.read_text(encoding="utf-8").splitlines():
            text = line.partition("#")[0].strip()
            if not text or text.startswith("-"):
                continue
            try:
                wanted = Requirement(text)
            except InvalidRequirement as error:
                raise SpecError(
                    f"'{entry['name']}' has a requirement that cannot be read", found=f"{text}: {error}"
                ) from None
            if wanted.marker is not None and not wanted.marker.evaluate():
                continue
            try:
                found = importlib.metadata.version(wanted.name)
            except importlib.metadata.PackageNotFoundError:
                found = None
            if found is None or not wanted.specifier.contains(found, prereleases=True):
                raise EnvironmentLacks(
                    f"the model '{entry['name']}' needs {text}",
                    found="it is not installed" if found is None else f"{wanted.name} {found}",
                    hint=f"install it where tritonforge runs: pip install '{text}'",
                )
