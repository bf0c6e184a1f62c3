"""What every use case starts from: the spec, a platform, the store and the folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonforge.artifact.digest import FileDigests
from tritonforge.artifact.store import LocalStore, default_home
from tritonforge.errors import UsageError, did_you_mean
from tritonforge.repository.evidence import EvidenceFolder
from tritonforge.repository.release import PlatformFolder
from tritonforge.sources.resolve import Resolver
from tritonforge.spec.load import LoadedSpec, load
from tritonforge.spec.lock import Lock, lock_path
from tritonforge.spec.platform import Platform, resolve_platform


@dataclass(frozen=True, slots=True)
class Workspace:
    """A loaded spec with where its results go."""

    loaded: LoadedSpec
    store: LocalStore

    @property
    def build_root(self) -> Path:
        """``build/`` beside the spec; another spec of the same folder has ``build-<its name>/``."""
        stem = self.loaded.file.stem
        return self.loaded.folder / ("build" if stem == "forge" else f"build-{stem}")

    @property
    def lock_path(self) -> Path:
        """``forge.lock`` beside the spec."""
        return lock_path(self.loaded.file)

    def platform(self, name: str | None = None) -> Platform:
        """The platform called ``name``; the spec's first without one.

        Raises:
            UsageError: the spec has no such platform.
        """
        platforms = self.loaded.spec.platforms
        chosen = next(iter(platforms)) if name is None else name
        if chosen not in platforms:
            raise UsageError(f"the spec has no platform '{chosen}'", hint=did_you_mean(chosen, platforms))
        return resolve_platform(chosen, platforms[chosen])

    def platforms(self, names: Sequence[str]) -> list[Platform]:
        """The platforms called ``names``; all of them for ``all``; the first without any."""
        if "all" in names:
            names = list(self.loaded.spec.platforms)
        return [self.platform(name) for name in dict.fromkeys(names)] or [self.platform()]

    def releases(self, platform: Platform) -> PlatformFolder:
        """Where the releases of a platform are."""
        return PlatformFolder(self.build_root / platform.name)

    def evidence(self, platform: Platform) -> EvidenceFolder:
        """Where the evidence of a platform is."""
        return EvidenceFolder(self.build_root / platform.name / "evidence")

    def resolver(
        self, lock: Lock, *, update: bool = False, reading: Callable[[Path], None] = lambda path: None
    ) -> Resolver:
        """Resolves the spec's sources and notes them in ``lock``; ``reading`` is told of files that are not known."""
        home = default_home()
        digests = FileDigests(home / "digests.sqlite")
        return Resolver(self.loaded.folder, home / "packages", digests, lock, update, reading)


def open_workspace(spec: Path | None = None, overlays: Sequence[Path] = ()) -> Workspace:
    """Load the spec (``forge.yaml`` here without a name).

    Raises:
        SpecError: it is missing or wrong.
    """
    loaded = load(spec or Path("forge.yaml"), overlays=overlays)
    return Workspace(loaded, LocalStore(default_home() / "store"))
