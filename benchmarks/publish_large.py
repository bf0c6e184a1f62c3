"""What it costs to publish an ONNX model with 4 GB of external data, compared with reading that file once.

The model is an embedding: a Gather from one table that lies in external data. ``tritonforge build`` makes a release of
it, golden cases and the run that proves the batch axis included; the alternative is a Python process that does
``hashlib.file_digest`` on the data and nothing else. Counted are wall time, the peak of the proportional set sizes of
the process tree (which holds the pages of mapped weights that were touched), the bytes that went through read(2), and
the blocks that new files take on the disk. The ratio of times is the median of those of the rounds. Then the same bytes
are published once more, and after that by a spec that changed, so that there is a new release: neither may read the
data again.

    python benchmarks/publish_large.py [--gigabytes 4] [--rounds 5] [--folder FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from claims import Claim, finish
from process_tree import Cost, measure, quiet_environment

from tritonforge.artifact.digest import digest_file

PROGRAM = str(Path(sys.executable).with_name("tritonforge"))
DIGEST = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256').hexdigest()"
WIDTH = 256
TIME, MEMORY, COPY, AGAIN = 1.2, 300e6, 0.01, 0.01
SPEC = """\
apiVersion: tritonforge/v1
name: large
models:
  table:
    source: {{path: table.onnx, link: true}}
    golden: {{ranges: {{ids: {{low: 0, high: {rows}}}}}}}
    max_batch_size: {batch}
"""


def write_model(folder: Path, size: int) -> Path:
    """``table.onnx``, whose table of about ``size`` bytes is in ``table.bin``; no zeros, and no holes."""
    import onnx
    from onnx import TensorProto, helper

    rows = size // (4 * WIDTH)
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[rows, WIDTH])
    table.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "table.bin"), ("offset", "0"), ("length", str(rows * 4 * WIDTH))):
        table.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        "large",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 4])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", 4, WIDTH])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir()
    onnx.save_model(model, folder / "table.onnx")
    # Finite floats of many values: an exponent with all bits set would be a NaN, and equal to nothing.
    piece = bytes(byte & 0x3F if place % 4 == 3 else byte for place, byte in enumerate(os.urandom(1 << 22)))
    data = folder / "table.bin"
    with data.open("wb") as stream:
        left = rows * 4 * WIDTH
        while left:
            left -= stream.write(piece[: min(left, len(piece))])
    _write_spec(folder, rows, 8)
    return data


def _write_spec(folder: Path, rows: int, batch: int) -> None:
    (folder / "forge.yaml").write_text(SPEC.format(rows=rows, batch=batch), encoding="utf-8")


def blocks(folders: list[Path], apart: set[int]) -> int:
    """The bytes that the files below ``folders`` take on the disk, each inode once, without the inodes ``apart``."""
    seen = {}
    for folder in folders:
        for path in folder.rglob("*"):
            found = path.lstat()
            if path.is_file() and not path.is_symlink() and found.st_ino not in apart:
                seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the file system to measure is (the one of temporary files)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    digests: list[Cost] = []
    builds: list[Cost] = []
    agains: list[Cost] = []
    news: list[Cost] = []
    copied: list[int] = []
    with tempfile.TemporaryDirectory(prefix="publish-large-", dir=options.folder) as name:
        root = Path(name)
        spec = root / "spec"
        data = write_model(spec, int(options.gigabytes * 1e9))
        size, home = data.stat().st_size, root / "home"
        environment = quiet_environment(home)
        os.sync()
        time.sleep(61)  # a younger file may be written through a mapping without another time: it is read once more
        own = {path.stat().st_ino for path in spec.iterdir()}
        for number in range(options.rounds):
            for left in (home, spec / "build"):
                shutil.rmtree(left, ignore_errors=True)
            time.sleep(2.1)  # a link less is a change too: of a file that changed just now nobody remembers the digest
            _write_spec(spec, size // (4 * WIDTH), 8)
            for whole in (True, False) if number % 2 else (False, True):
                digest_file(data)  # a machine may take idle pages out of the cache
                if whole:
                    builds.append(measure([PROGRAM, "build"], spec, environment, memory=True))
                else:
                    digests.append(measure([sys.executable, "-c", DIGEST, str(data)], root, environment))
                os.sync()
            copied.append(blocks([home, spec / "build"], own))
            agains.append(measure([PROGRAM, "build"], spec, environment))
            _write_spec(spec, size // (4 * WIDTH), 4)
            news.append(measure([PROGRAM, "build"], spec, environment))
            said = (spec / "benchmark.log").read_text(encoding="utf-8")
            if "new release" not in said:
                raise SystemExit(f"the changed spec made no new release:\n{said}")
            print(f"round {number + 1}: {builds[-1]}, digest {digests[-1].wall_s:.2f} s", file=sys.stderr)
    wall, alone = (statistics.median(cost.wall_s for cost in costs) for costs in (builds, digests))
    ratios = [build.wall_s / digest.wall_s for build, digest in zip(builds, digests, strict=True)]
    peak = max(cost.peak_bytes for cost in builds)
    again = max(cost.read_bytes for cost in (*agains, *news))
    what = f"publish {size / 1e9:.1f} GB"
    claims = [
        Claim(
            f"{what}: no second copy on the disk",
            f"{max(copied) / 1e6:.0f} MB of new blocks",
            f"the data: {size / 1e6:.0f} MB",
            max(copied) / size,
            COPY,
        ),
        Claim(
            f"{what}: at most {MEMORY / 1e6:.0f} MB of memory",
            f"{peak / 1e6:.0f} MB",
            f"{MEMORY / 1e6:.0f} MB",
            peak / MEMORY,
            1.0,
        ),
        Claim(
            f"{what}: at most {TIME:g}x reading it once for its sha256",
            f"{wall:.2f} s",
            f"file_digest {alone:.2f} s",
            statistics.median(ratios),
            TIME,
        ),
        Claim(
            f"{what} again: the data is not read",
            f"{again / 1e6:.0f} MB read",
            f"the data: {size / 1e6:.0f} MB",
            again / size,
            max(AGAIN, 50e6 / size),  # Python's own modules are some megabytes
        ),
    ]
    details = {
        "bytes": size,
        "rounds": options.rounds,
        "builds": [asdict(cost) for cost in builds],
        "ratios": ratios,
        "digests": [asdict(cost) for cost in digests],
        "again": [asdict(cost) for cost in agains],
        "new_releases": [asdict(cost) for cost in news],
        "new_blocks": copied,
        "times_read": statistics.median(cost.read_bytes for cost in builds) / size,
    }
    return finish(claims, details, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
