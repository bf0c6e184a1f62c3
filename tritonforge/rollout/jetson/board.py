"""What a Jetson is, read over SSH in one round trip."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.jetson.table import jetpack_of_l4t
from tritonforge.rollout.ssh import SshHost

# Plain POSIX: the boards' /bin/sh is dash or busybox. $1 is the root below which files are looked for, and programs
# first. A line of `@@name` begins a part; what follows is as the board says it.
_SCRIPT: Final = r"""
R=$1
PATH="$R/usr/sbin:$R/usr/bin:$PATH:/usr/sbin:/sbin"
export LC_ALL=C
part() { printf '\n@@%s\n' "$1"; }
part model;      tr -d '\000' < "$R/proc/device-tree/model" 2>/dev/null
part soc;        tr '\000' '\n' < "$R/proc/device-tree/compatible" 2>/dev/null
part l4t;        head -n 1 "$R/etc/nv_tegra_release" 2>/dev/null
part kernel;     uname -r
part machine;    uname -m
part memory;     grep -E '^(MemTotal|MemAvailable|SwapTotal|SwapFree):' "$R/proc/meminfo" 2>/dev/null
part packages;   dpkg-query --admindir="$R/var/lib/dpkg" -W -f '${Package} ${Version} ${db:Status-Status}\n' \
    nvidia-jetpack nvidia-l4t-core tensorrt 'libnvinfer[0-9]*' 'cuda-cudart-[0-9]*' nvidia-container-toolkit 2>/dev/null
part power;      { nvpmodel -q || sudo -n nvpmodel -q; } 2>/dev/null
part clocks
for d in "$R"/sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
  [ -r "$d/scaling_min_freq" ] && echo "cpu $(cat "$d/scaling_min_freq") $(cat "$d/scaling_max_freq")"
done
for d in "$R"/sys/class/devfreq/*.gpu "$R"/sys/class/devfreq/*.g[apv]1* "$R"/sys/class/devfreq/gpu-*; do
  [ -r "$d/min_freq" ] && echo "gpu $(cat "$d/min_freq") $(cat "$d/max_freq")"
done
part engine
engine=$(docker info --format '{{.ServerVersion}}
{{.DefaultRuntime}}
{{.DockerRootDir}}
{{range $name, $_ := .Runtimes}}{{$name}} {{end}}' 2>&1)
echo "$engine"
part disk
root=$(echo "$engine" | sed -n 3p)
[ -d "$root" ] || root=/
df -Pk "$root" 2>/dev/null | tail -n 1
part end
"""
_PART: Final = re.compile(r"^@@(\w+)$", re.MULTILINE)
_L4T: Final = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True)
class Engine:
    """The board's Docker engine; ``problem`` is why it does not answer, in its own words."""

    version: str | None = None
    runtimes: tuple[str, ...] = ()
    default_runtime: str | None = None
    root: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """A Jetson as it stands. Sizes in bytes; None is what could not be read.

    ``memory`` is unified: the GPU's is the same. ``clocks`` is ``fixed`` when every processor and the GPU run at one
    frequency (as after ``jetson_clocks``), else ``varying``.
    """

    module: str
    l4t: str
    jetpack: str | None
    architecture: str
    kernel: str
    soc: str | None = None
    cuda: str | None = None
    tensorrt: str | None = None
    container_toolkit: str | None = None
    engine: Engine = Engine()
    memory_total: int | None = None
    memory_available: int | None = None
    swap_free: int | None = None
    disk_free: int | None = None
    power_mode: str | None = None
    clocks: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def jetpack_major(self) -> str | None:
        """What decides about images: that of L4T, the kernel and drivers that run."""
        return (jetpack_of_l4t(self.l4t) or self.jetpack or "").partition(".")[0] or None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_board(host: SshHost, *, root: str = "", timeout: float = 60.0) -> Board:
    """Ask a board what it is. Its files are looked for below ``root``, as where they are mounted into a container.

    Raises:
        EnvironmentLacks: it is not reached.
        CheckFailed: it is no Jetson.
    """
    done = host.run(["sh", "-s", "--", root.rstrip("/")], stdin=_SCRIPT.encode(), timeout=timeout)
    parts = _parts(done.text)
    if "end" not in parts:
        raise EnvironmentLacks(
            f"{host.address} did not say what it is", found=done.stderr.strip()[-300:] or f"exit code {done.code}"
        )
    found = _L4T.search(parts.get("l4t", ""))
    if found is None:
        raise CheckFailed(
            f"{host.address} is no Jetson with NVIDIA's Jetson Linux",
            expected="a line such as `# R36 (release), REVISION: 4.3, …` in /etc/nv_tegra_release",
            found=parts.get("l4t") or parts.get("model") or f"{parts.get('machine')}, no such file",
            hint="for any other machine with Docker use a target of kind docker with `host: ssh://user@host`",
        )
    packages = _packages(parts.get("packages", ""))
    l4t, notes = _l4t(found, packages)
    jetpack = packages.get("nvidia-jetpack") or jetpack_of_l4t(l4t)
    driver = jetpack_of_l4t(l4t)
    if jetpack and driver and jetpack.partition("+")[0].partition("-")[0] != driver and "." in driver:
        notes.append(f"the package nvidia-jetpack is {jetpack}, Jetson Linux {l4t} that runs is JetPack {driver}'s")
    memory = _memory(parts.get("memory", ""))
    disk = parts.get("disk", "").split()
    return Board(
        module=parts.get("model") or "a Jetson without a name",
        l4t=l4t,
        jetpack=None if jetpack is None else re.split(r"[+-]", jetpack)[0],
        architecture=parts.get("machine", ""),
        kernel=parts.get("kernel", ""),
        soc=_soc(parts.get("soc", "")),
        cuda=_cuda(packages),
        tensorrt=_tensorrt(packages),
        container_toolkit=packages.get("nvidia-container-toolkit"),
        engine=_engine(parts.get("engine", "")),
        memory_total=memory.get("MemTotal"),
        memory_available=memory.get("MemAvailable"),
        swap_free=memory.get("SwapFree"),
        disk_free=int(disk[3]) * 1024 if len(disk) >= 6 and disk[3].isdigit() else None,
        power_mode=_power(parts.get("power", "")),
        clocks=_clocks(parts.get("clocks", "")),
        notes=tuple(notes),
    )


def _parts(text: str) -> dict[str, str]:
    pieces = _PART.split(text)
    return {name: body.strip() for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def _packages(text: str) -> dict[str, str]:
    """Installed packages with their versions."""
    rows = [line.split() for line in text.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}


def _l4t(found: re.Match[str], packages: dict[str, str]) -> tuple[str, list[str]]:
    """Three numbers. The package is the finer source: an upgrade by apt can leave the file behind."""
    file = ".".join([found[1], *[*found[2].split("."), "0"][:2]])
    package = packages.get("nvidia-l4t-core", "").partition("-")[0]
    if package.count(".") == 2 and package != file and package.split(".")[0] == found[1]:
        return package, [f"/etc/nv_tegra_release says {file}, the package nvidia-l4t-core {package}"]
    return file, []


def _cuda(packages: dict[str, str]) -> str | None:
    names = [name for name in packages if re.fullmatch(r"cuda-cudart-\d+-\d+", name)]
    best = max(names, key=lambda name: [int(part) for part in name.split("-")[2:]], default=None)
    return None if best is None else packages[best].partition("-")[0]


def _tensorrt(packages: dict[str, str]) -> str | None:
    names = ["tensorrt", *sorted(name for name in packages if re.fullmatch(r"libnvinfer\d+", name))]
    version = next((packages[name] for name in names if name in packages), None)
    return None if version is None else version.partition("-")[0]


def _memory(text: str) -> dict[str, int]:
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def _power(text: str) -> str | None:
    found = re.search(r"NV Power Mode:\s*(\S+)", text)
    return None if found is None else found[1]


def _clocks(text: str) -> str | None:
    ranges = [line.split()[1:] for line in text.splitlines() if len(line.split()) == 3]
    if not ranges:
        return None
    return "fixed" if all(low == high for low, high in ranges) else "varying"


def _engine(text: str) -> Engine:
    lines = text.splitlines()
    if len(lines) == 4 and re.match(r"\d+\.\d+", lines[0]):
        return Engine(lines[0], tuple(sorted(lines[3].split())), lines[1], lines[2])
    return Engine(problem=" ".join(text.split())[:300] or "docker said nothing")


def _soc(text: str) -> str | None:
    """``tegra234`` of the list of what the board is compatible with, which goes from the special to the general."""
    return next((name.partition(",")[2] for name in text.splitlines() if name.startswith("nvidia,tegra")), None)
