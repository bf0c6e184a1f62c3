"""tritonforge's hand on a target: its journal, its lock, its files, its proxy, and the dead-man timer.

    python3 agent.py --root FOLDER OPERATION        # arguments: one JSON object on standard input; answer: one on output
    python3 agent.py --root FOLDER watch            # runs until it is ended; goes back by itself when nobody confirms

It runs where tritonforge is not installed (a keeper container made of Triton's own image, a Jetson, a pod), so it is one
file that needs Python 3.6 and its standard library. Every operation can be repeated. What changes something on behalf of
a rollout needs that rollout's lock, named by its token: whoever lost the lock can change nothing any more.

FOLDER holds:
    journal.jsonl             one line an event; only ever appended to
    lock.json                 who changes this target now
    pending.json              what to undo unless it is confirmed in time
    watch.json                the process of `watch`, and its beat
    blobs/<2>/<sha256>        files by content, read-only
    incoming/                 files on their way to blobs/
    snapshots/<release>/      a release: models/ as Triton reads it (hard links into blobs/), and snapshot.json
    proxy/                    haproxy.cfg and its control socket
"""

import argparse
import binascii
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import time

VERSION = 1
BLOCK = 1 << 20
POLL = 0.2


class Refused(Exception):
    """An operation that was not done; ``code`` tells programs why, ``facts`` what was found."""

    def __init__(self, code, message, **facts):
        super().__init__(message)
        self.code = code
        self.facts = facts


# --- files


def below(root, path):
    """``path`` below ``root``; nothing leaves it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path or not parts:
        raise Refused("path", "the path leaves its folder: %r" % path)
    return os.path.join(root, *parts)


def sync_folder(folder):
    """Make the names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(path, data, mode=0o644):
    """Replace a file in one rename."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    staged = "%s.%d.tmp" % (path, os.getpid())
    try:
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(staged, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(staged)
        raise
    sync_folder(os.path.dirname(path))


def write_json(path, value, mode=0o644):
    write_whole(path, (json.dumps(value, sort_keys=True) + "\n").encode("utf-8"), mode)


def read_json(path):
    """What a file says; None where it is absent or was never finished."""
    try:
        with open(path, "rb") as stream:
            return json.loads(stream.read().decode("utf-8"))
    except (OSError, ValueError):
        return None


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def alone(root):
    """One operation at a time; the kernel lets go when its process ends."""
    fd = os.open(os.path.join(root, ".alone"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def boot_id():
    """Changes with every start of the machine (proc(5), random/boot_id)."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- the journal


def journal_path(root):
    return os.path.join(root, "journal.jsonl")


def read_journal(root):
    """All events, and the size of what is whole: a line that a crash cut off was never acknowledged."""
    try:
        with open(journal_path(root), "rb") as stream:
            data = stream.read()
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return [], 0
    events, whole = [], 0
    for line in data.splitlines(True):
        if not line.endswith(b"\n"):
            break
        try:
            events.append(json.loads(line.decode("utf-8")))
        except ValueError:
            raise Refused("journal", "line %d of the journal is damaged" % (len(events) + 1))
        whole += len(line)
    return events, whole


def append_event(root, event):
    events, whole = read_journal(root)
    event = dict(event, seq=len(events) + 1, at=event.get("at") or now())
    path = journal_path(root)
    new = not os.path.exists(path)
    with open(path, "ab") as stream:
        stream.truncate(whole)
        stream.write((json.dumps(event, sort_keys=True) + "\n").encode("utf-8"))
        stream.flush()
        os.fsync(stream.fileno())
    if new:
        sync_folder(root)
    return event


def op_append(root, args):
    """Add one event. ``after`` is the number of events that the caller knows: another writer would show."""
    require_lock(root, args["token"])
    events, _ = read_journal(root)
    if args.get("after") is not None and args["after"] != len(events):
        raise Refused("journal", "somebody else wrote to the journal", events=len(events))
    return append_event(root, args["event"])


# --- the lock


def lock_path(root):
    return os.path.join(root, "lock.json")


GOING_BACK = set()
"""Tokens that the dead-man timer acts for; its holder may have let go of the lock, or somebody may have broken it."""


def require_lock(root, token):
    held = read_json(lock_path(root))
    if held is None and token in GOING_BACK:
        return
    if held is None or held.get("token") != token:
        raise Refused("lock", "the lock of this target is not held any more", holder=shown(held))


def shown(held):
    """The lock without its token, which is what its holder proves itself with."""
    return None if held is None else {name: value for name, value in held.items() if name != "token"}


def op_lock(root, args):
    """Take the lock for ``token``; ``instead`` is the id of a lock that may be taken over, such as a dead process's."""
    held = read_json(lock_path(root))
    other = held is not None and held.get("token") != args["token"]
    if other and held.get("id") != args.get("instead"):
        raise Refused("locked", "the target is locked", holder=shown(held))
    write_json(lock_path(root), dict(args["holder"], token=args["token"], since=now()), 0o600)
    pending = read_json(pending_path(root))
    if pending is not None and pending["token"] != args["token"]:
        # What the holder before left pending is this one's now: it gets the whole time to undo it or to go on.
        write_json(pending_path(root), dict(pending, token=args["token"], beat=beat()), 0o600)
    return {"taken_over": shown(held) if other else None}


def op_unlock(root, args):
    """Give the lock back, or break the one that has the id ``instead``."""
    held = read_json(lock_path(root))
    if held is None:
        return {"holder": None}
    if held.get("token") != args.get("token") and held.get("id") != args.get("instead"):
        raise Refused("locked", "the target is locked", holder=shown(held))
    os.unlink(lock_path(root))
    sync_folder(root)
    return {"holder": shown(held)}


# --- what is there


def op_hello(root, args):
    """What the target is, as far as the agent sees it."""
    stat = os.statvfs(root)
    return {
        "agent": VERSION,
        "python": sys.version.split()[0],
        "boot": boot_id(),
        "at": now(),
        "free": stat.f_bavail * stat.f_frsize,
        "size": stat.f_blocks * stat.f_frsize,
    }


def op_read(root, args):
    """Everything that a command wants to know of a target, in one answer."""
    events, _ = read_journal(root)
    held = read_json(lock_path(root))
    pending = read_json(os.path.join(root, "pending.json"))
    if pending is not None:
        pending = {name: pending[name] for name in ("rollout", "seconds") if name in pending}
    snapshots = {}
    folder = os.path.join(root, "snapshots")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if not name.startswith("."):
            snapshots[name] = (read_json(os.path.join(folder, name, "snapshot.json")) or {}).get("bytes")
    return {
        "journal": events,
        "lock": shown(held),
        "pending": pending,
        "snapshots": snapshots,
        "watching": watching(root),
        "hello": op_hello(root, args),
    }


def op_read_file(root, args):
    """A small text file below the root; None where it is absent."""
    try:
        with open(below(root, args["path"]), "rb") as stream:
            return stream.read(4 << 20).decode("utf-8")
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return None


def op_read_files(root, args):
    """Several small text files below the root; those that are absent are null."""
    return {path: op_read_file(root, {"path": path}) for path in args["paths"]}


def op_intact(root, args):
    """The files of a snapshot that are missing or have another size; with ``deep`` another content."""
    folder = below(os.path.join(root, "snapshots"), args["release"])
    said = read_json(os.path.join(folder, "snapshot.json"))
    if said is None:
        return {"bad": ["snapshot.json"]}
    bad = []
    for path, item in sorted(said["files"].items()):
        file = below(folder, path)
        try:
            good = os.stat(file).st_size == item["size"] and (not args.get("deep") or sha256(file) == item["sha256"])
        except OSError:
            good = False
        if not good:
            bad.append(path)
    return {"bad": bad}


def op_write_file(root, args):
    """Replace a small text file in one rename."""
    require_lock(root, args["token"])
    write_whole(below(root, args["path"]), args["text"].encode("utf-8"), args.get("mode", 0o644))


# --- files by content


def blob_path(root, digest):
    if len(digest) != 64 or any(letter not in "0123456789abcdef" for letter in digest):
        raise Refused("path", "that is no sha256: %r" % digest)
    return os.path.join(root, "blobs", digest[:2], digest)


def op_missing(root, args):
    """Which of ``files`` (sha256 → size) are not here, and whether there is room for them."""
    absent = []
    for digest, size in sorted(args["files"].items()):
        try:
            if os.stat(blob_path(root, digest)).st_size == size:
                continue
        except OSError:
            pass
        absent.append(digest)
    stat = os.statvfs(root)
    wanted = sum(args["files"][digest] for digest in absent)
    return {"missing": absent, "bytes": wanted, "free": stat.f_bavail * stat.f_frsize}


def op_admit(root, args):
    """Take files from ``incoming/`` (each named by its sha256) into ``blobs/``, once they are what they are called."""
    bad = []
    for digest in args["files"]:
        target = blob_path(root, digest)
        source = os.path.join(root, "incoming", digest)
        if not os.path.exists(source):
            if not os.path.exists(target):
                bad.append(digest)
            continue
        if sha256(source) != digest:
            os.unlink(source)
            bad.append(digest)
            continue
        if os.stat(source).st_nlink == 1:  # else it is a release's file, whose mode is its owner's
            os.chmod(source, 0o444)
        fd = os.open(source, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(source, target)
        sync_folder(os.path.dirname(target))
    if bad:
        raise Refused("content", "%d files did not arrive whole" % len(bad), files=bad)
    return {"admitted": len(args["files"])}


def op_snapshot(root, args):
    """Make ``snapshots/<release>``: ``files`` are path → {"sha256", "size"}, ``folders`` are made though empty."""
    require_lock(root, args["token"])
    folder = os.path.join(root, "snapshots")
    target = below(folder, args["release"])
    said = {"files": args["files"], "folders": args.get("folders") or []}
    said["bytes"] = sum(item["size"] for item in args["files"].values())
    known = read_json(os.path.join(target, "snapshot.json"))
    if known is not None and known.get("files") == said["files"] and whole(target, said):
        return {"new": False}
    os.makedirs(folder, exist_ok=True)
    sweep(folder)
    staging = os.path.join(folder, ".staging-%d" % os.getpid())
    try:
        os.makedirs(staging)
        for path, item in sorted(args["files"].items()):
            file = below(staging, path)
            os.makedirs(os.path.dirname(file), exist_ok=True)
            os.link(blob_path(root, item["sha256"]), file)
        for path in said["folders"]:
            os.makedirs(below(staging, path), exist_ok=True)
        write_json(os.path.join(staging, "snapshot.json"), said)
        for base, _, _ in os.walk(staging):
            os.chmod(base, 0o755)
            sync_folder(base)
        if os.path.exists(target):
            os.rename(target, os.path.join(folder, ".staging-old-%d" % os.getpid()))
        os.rename(staging, target)
        sync_folder(folder)
    finally:
        sweep(folder)
    return {"new": True}


def whole(folder, said):
    for path, item in said["files"].items():
        try:
            if os.stat(below(folder, path)).st_size != item["size"]:
                return False
        except OSError:
            return False
    return True


def sweep(folder):
    for name in os.listdir(folder):
        if name.startswith(".staging-"):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def op_prune(root, args):
    """Delete the snapshots that are not in ``keep``, then what nothing names any more."""
    require_lock(root, args["token"])
    folder = os.path.join(root, "snapshots")
    gone = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name in args["keep"]:
            continue
        doomed = os.path.join(folder, ".staging-gone-" + name[:20])
        if not name.startswith("."):
            os.rename(os.path.join(folder, name), doomed)
            gone.append(name)
    if os.path.isdir(folder):
        sweep(folder)
    shutil.rmtree(os.path.join(root, "incoming"), ignore_errors=True)
    named = set()
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        said = read_json(os.path.join(folder, name, "snapshot.json")) or {"files": {}}
        named.update(item["sha256"] for item in said["files"].values())
    for base, _, names in os.walk(os.path.join(root, "blobs")):
        for name in names:
            if name not in named:
                os.unlink(os.path.join(base, name))
    return {"gone": gone}


# --- the proxy


def ask_proxy(address, command, timeout=5.0):
    """One command to HAProxy's runtime API (HAProxy management guide, 9.3): ``unix:PATH`` or ``HOST:PORT``."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(address[5:])
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)), timeout)
    try:
        connection.sendall(command.encode("ascii") + b"\n")
        parts = []
        for part in iter(lambda: connection.recv(65536), b""):
            parts.append(part)
    finally:
        connection.close()
    return b"".join(parts).decode("utf-8", "replace")


def controls(args):
    """The runtime APIs of all proxies: a name may stand for several addresses (a headless Service)."""
    found = []
    for address in args["control"]:
        if address.startswith("unix:"):
            found.append(address)
            continue
        host, _, port = address.rpartition(":")
        try:
            answers = socket.getaddrinfo(host, int(port), 0, socket.SOCK_STREAM)
        except OSError as error:
            raise Refused("proxy", "the proxy %s is not found: %s" % (address, error))
        found += sorted({"%s:%d" % (item[4][0], int(port)) for item in answers})
    return found


def proxy_rows(address):
    """``show stat`` as a list of rows by column name."""
    lines = ask_proxy(address, "show stat").splitlines()
    names = lines[0].lstrip("# ").split(",") if lines else []
    return [dict(zip(names, line.split(","))) for line in lines[1:] if line]


BACKENDS = ("triton_http", "triton_grpc")
SPARE = "spare-"


def slot_of(server):
    """The slot of a server line: ``blue``, or ``blue3`` where the proxy finds several by name."""
    return server.rstrip("0123456789")


def op_weigh(root, args):
    """Set the weights of all servers: ``weights`` is slot → 0..256, on every proxy of ``control``.

    ``spares`` are the slots that may stand in, whatever their weight, while no server with a weight is up.
    """
    if args.get("token") is not None:
        require_lock(root, args["token"])
    addresses = controls(args)
    for address in addresses:
        try:
            for row in proxy_rows(address):
                weigh_one(address, row, args["weights"], args.get("spares"))
        except OSError as error:
            raise Refused("proxy", "the proxy at %s does not answer: %s" % (address, error))
    return {"proxies": len(addresses)}


def weigh_one(address, row, weights, spares):
    """Bring one server of one proxy to where it should be, with no command where it is there."""
    server = "%s/%s" % (row["pxname"], row["svname"])
    if row["pxname"] not in BACKENDS or row["svname"] in ("FRONTEND", "BACKEND"):
        return
    stopped = row["status"].startswith("MAINT")
    if row["svname"].startswith(SPARE):
        slot = slot_of(row["svname"][len(SPARE) :])
        if spares is not None and (slot in spares) == stopped:
            run_proxy(address, "set server %s state %s" % (server, "ready" if stopped else "maint"))
        return
    slot = slot_of(row["svname"])
    if slot not in weights:
        return
    if int(row["weight"] or 0) != weights[slot]:
        run_proxy(address, "set server %s weight %d" % (server, weights[slot]))
    if weights[slot] > 0 and ((stopped and "resolution" not in row["status"]) or row["status"].startswith("DRAIN")):
        run_proxy(address, "set server %s state ready" % server)


def run_proxy(address, command):
    answer = ask_proxy(address, command).strip()
    if answer and not answer.startswith(("no need", "IP changed", "port changed", "nothing changed")):
        raise Refused("proxy", "the proxy refused '%s': %s" % (command, answer))


SUMS = ("scur", "stot", "econ", "eresp", "wredis", "hrsp_5xx", "hrsp_4xx", "hrsp_2xx", "weight", "act")


def op_proxy(root, args):
    """What the proxies say of each backend's servers: ``{backend: {slot: {"status": [...], counters…}}}``."""
    found = {}
    for address in controls(args):
        try:
            rows = proxy_rows(address)
        except OSError as error:
            raise Refused("proxy", "the proxy at %s does not answer: %s" % (address, error))
        for row in rows:
            if row["svname"] in ("FRONTEND", "BACKEND") or row["pxname"] not in BACKENDS:
                continue
            name = row["svname"]
            spare = name.startswith(SPARE)
            slot = slot_of(name[len(SPARE) :] if spare else name)
            slot = found.setdefault(row["pxname"], {}).setdefault(slot, {"status": []})
            if not spare:
                slot["status"].append(row["status"])
            for name in SUMS:
                slot[name] = slot.get(name, 0) + (0 if spare and name == "weight" else int(row.get(name) or 0))
    return found


# --- the dead-man timer


def pending_path(root):
    return os.path.join(root, "pending.json")


def op_arm(root, args):
    """Note what to do (``revert``: operations) unless ``confirm`` comes every ``seconds``; then do ``then``.

    It is noted before anything is changed, so that no change is ever without its way back.
    """
    require_lock(root, args["token"])
    if not watching(root):
        raise Refused("watch", "the dead-man timer of this target does not run")
    write_json(
        pending_path(root),
        {
            "rollout": args["rollout"],
            "seconds": args["seconds"],
            "token": args["token"],
            "revert": args["revert"],
            "beat": beat(),
        },
        0o600,
    )


def beat():
    """A value that was never there before: the timer sees that it changed, and compares no times."""
    return binascii.hexlify(os.urandom(8)).decode("ascii")


def op_confirm(root, args):
    """Say that the rollout is still looked after."""
    require_lock(root, args["token"])
    pending = read_json(pending_path(root))
    if pending is None:
        raise Refused("reverted", "nothing is pending: the dead-man timer went off or was ended")
    pending["beat"] = beat()
    write_json(pending_path(root), pending, 0o600)


def op_disarm(root, args):
    """What was pending is now meant to stay, or was undone."""
    require_lock(root, args["token"])
    with contextlib.suppress(OSError):
        os.unlink(pending_path(root))
    sync_folder(root)


def watching(root):
    """Whether `watch` runs: its beat, in this boot's own seconds, is fresh."""
    said = read_json(os.path.join(root, "watch.json"))
    return bool(said) and said.get("boot") == boot_id() and 0 <= time.monotonic() - said["beat"] < 15


def op_watch(root, args):
    """Wait for what is pending, and go back when nobody confirms. Times are this process's own: a clock that is set
    changes nothing, and after a restart the whole time is waited again. It ends when its folder is gone."""
    seen, deadline, said = None, None, 0.0
    while os.path.isdir(root):
        if time.monotonic() - said > 2.0:
            said = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk must not end the timer
                write_json(os.path.join(root, "watch.json"), {"pid": os.getpid(), "boot": boot_id(), "beat": said})
        pending = read_json(pending_path(root))
        if pending is None:
            seen = deadline = None
        elif pending != seen:
            seen, deadline = pending, time.monotonic() + pending["seconds"]
        elif time.monotonic() >= deadline:
            try:
                with alone(root):
                    again = read_json(pending_path(root)) == pending and revert(root, pending)
            except OSError as error:  # such as a full disk: whatever could not be done is tried again
                again = True
                sys.stderr.write("dead-man timer: %s\n" % error)
                sys.stderr.flush()
            if again:
                deadline = time.monotonic() + 5.0
            continue
        time.sleep(POLL)


def revert(root, pending):
    """Undo, note it, and let go of the lock: its holder is gone, or will find that it has lost it. True when it
    failed; it is tried again then."""
    problems = []
    GOING_BACK.add(pending["token"])
    try:
        meant = any(
            event.get("rollout") == pending["rollout"] and event.get("event") == "committed"
            for event in read_journal(root)[0]
        )
    except (OSError, Refused):
        meant = False
    for step in [] if meant else pending["revert"]:
        try:
            OPERATIONS[step["op"]](root, dict(step, token=pending["token"]))
        except (Refused, OSError, KeyError, ValueError) as error:
            problems.append("%s: %s" % (step.get("op"), error))
    if problems:
        sys.stderr.write("dead-man timer: %s\n" % "; ".join(problems))
        sys.stderr.flush()
        return True
    if not meant:
        with contextlib.suppress(OSError, Refused):
            append_event(root, {"rollout": pending["rollout"], "event": "reverted", "by": "dead-man timer"})
    held = read_json(lock_path(root))
    if held is not None and held.get("token") == pending["token"]:
        os.unlink(lock_path(root))
    os.unlink(pending_path(root))
    sync_folder(root)
    return False


OPERATIONS = {
    "hello": op_hello,
    "read": op_read,
    "read_file": op_read_file,
    "read_files": op_read_files,
    "intact": op_intact,
    "write_file": op_write_file,
    "append": op_append,
    "lock": op_lock,
    "unlock": op_unlock,
    "missing": op_missing,
    "admit": op_admit,
    "snapshot": op_snapshot,
    "prune": op_prune,
    "weigh": op_weigh,
    "proxy": op_proxy,
    "arm": op_arm,
    "confirm": op_confirm,
    "disarm": op_disarm,
}


def main():
    parser = argparse.ArgumentParser(description="tritonforge's hand on a target")
    parser.add_argument("--root", required=True)
    parser.add_argument("operation", choices=sorted([*OPERATIONS, "watch"]))
    given = parser.parse_args()
    os.makedirs(given.root, exist_ok=True)
    if given.operation == "watch":
        op_watch(given.root, {})
        return
    text = sys.stdin.readline()  # one line: not every way to here can say that it has ended
    try:
        args = json.loads(text) if text.strip() else {}
        with alone(given.root):
            answer = {"ok": OPERATIONS[given.operation](given.root, args)}
    except Refused as refused:
        answer = {"error": {"code": refused.code, "message": str(refused), "facts": refused.facts}}
    except OSError as error:
        code = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "os"
        answer = {"error": {"code": code, "message": str(error), "facts": {"errno": error.errno}}}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
