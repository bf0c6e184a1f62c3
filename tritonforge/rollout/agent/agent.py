"""tritonforge's hand on a target: its journal, its lock, its files, its proxy, and the dead-man timer.

    python3 agent.py --root FOLDER OPERATION   # arguments: a JSON object on standard input; the answer: one on output
    python3 agent.py --root FOLDER watch        # runs until it is ended; goes back by itself when nobody confirms

It runs where tritonforge is not installed (a keeper container made of Triton's own image, a Jetson, a pod), so it is
one file that needs Python 3.6 and its standard library. Every operation can be repeated. What changes something on
behalf of a rollout needs that rollout's lock, named by its token: whoever lost the lock can change nothing any more.

FOLDER holds:
    journal.jsonl             one line an event; only ever appended to
    lock.json                 who changes this target now
    pending.json              what to undo unless it is confirmed in time
    watch.json                the process of `watch`, and its beat
    blobs/<2>/<sha256>        files by content, read-only
    incoming/                 files on their way to blobs/
    snapshots/<release>/      a release: models/ as Triton reads it (hard links into blobs/), and snapshot.json
    proxy/                    haproxy.cfg and its control socket
    live/, live-staging/      with one slot: the server's own folder, and what is on its way there
    live.json, control.*      with one slot: what live/ holds, and how its server is reached
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
import signal
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
    found = os.path.join(root, *parts)
    folder, top = os.path.realpath(os.path.dirname(found)), os.path.realpath(root)
    if os.path.islink(found) or (folder != top and not folder.startswith(top + os.sep)):
        raise Refused("path", "a link leads out of the folder: %r" % path)
    return found


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
    event = append_event(root, args["event"])
    pending = read_json(pending_path(root))
    if pending is not None and pending["token"] == args["token"]:
        write_json(pending_path(root), dict(pending, beat=beat()), 0o600)  # a sign of life, like `confirm`
    return event


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
    problems = []
    for address in addresses:  # one that is gone keeps nobody else where it was
        try:
            for row in proxy_rows(address):
                weigh_one(address, row, args["weights"], args.get("spares"))
        except OSError as error:
            problems.append("the proxy at %s does not answer: %s" % (address, error))
    if problems:
        raise Refused("proxy", "; ".join(problems))
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


# --- routes of a cluster's gateway

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def op_route(root, args):
    """Set the weights of the Gateway API routes called ``name``: a backend's slot is the end of its name. By the API of
    the cluster that this runs in, as the pod's own account."""
    if args.get("token") is not None:
        require_lock(root, args["token"])
    found = []
    for kind in ("httproutes", "grpcroutes"):
        route = ask_cluster(args, kind)
        if route is None:
            continue
        rules = route["spec"].get("rules") or []
        for rule in rules:
            for backend in rule.get("backendRefs") or []:
                slot = backend["name"].rpartition("-")[2]
                if slot in args["weights"]:
                    backend["weight"] = args["weights"][slot]
        seen = {"resourceVersion": route["metadata"]["resourceVersion"]}
        ask_cluster(args, kind, {"metadata": seen, "spec": {"rules": rules}})
        found.append(kind)
    if not found:
        raise Refused("proxy", "the routes called %s are not there" % args["name"])
    return {"routes": found}


def ask_cluster(args, kind, patch=None):
    """Read or patch one route; None where it is absent."""
    import ssl
    import urllib.error
    import urllib.request

    with open(ACCOUNT + "/namespace") as stream:
        namespace = stream.read().strip()
    with open(ACCOUNT + "/token") as stream:
        token = stream.read().strip()
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = "[%s]" % host if ":" in host else host
    address = "https://%s:%s/apis/%s/namespaces/%s/%s/%s" % (host, port, args["group"], namespace, kind, args["name"])
    request = urllib.request.Request(address, headers={"Authorization": "Bearer " + token})
    if patch is not None:
        request.data = json.dumps(patch).encode("utf-8")
        request.get_method = lambda: "PATCH"
        request.add_header("Content-Type", "application/merge-patch+json")
    try:
        context = ssl.create_default_context(cafile=ACCOUNT + "/ca.crt")
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return json.loads(answer.read().decode("utf-8"))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise Refused("proxy", "the cluster refuses %s of %s: %s" % (request.get_method(), kind, error))
    except OSError as error:
        raise Refused("proxy", "the cluster does not answer: %s" % error)


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
                with applying(root), alone(root):
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


# --- the live folder: one server in explicit mode, changed in place
#
#   live/           what that server reads; its files are copies: a hard link that comes or goes changes a file's
#                   ctime, and Triton then reloads it
#   live-staging/   beside it on the same file system: everything is made here and renamed into live/
#   live.json       what live/ holds, and what of it the server was seen to have loaded
#   control.json    where the server is and what it wants to see (0600); control.key its secret for loads (0600)

CONTROL_HEADER = "tritonforge-control"
FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file, not its inode


def live_folder(root):
    """Where the server's repository really is: ``live/`` may be a link."""
    return os.path.realpath(os.path.join(root, "live"))


def staging_folder(root):
    return os.path.join(root, "live-staging")


def read_live(root):
    return read_json(os.path.join(root, "live.json")) or {"stamp": 0, "folders": {}}


def write_live(root, live):
    write_json(os.path.join(root, "live.json"), live)


def plain_name(name):
    """A folder's own name: one that is no path and is not hidden."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise Refused("path", "that is no name of a model: %r" % name)
    return name


def text_digest(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def state_digest(record):
    """What stands for all that a load reads of a folder."""
    said = [record["config"], record["files"], record["versions"]]
    return text_digest(json.dumps(said, sort_keys=True))


def op_live(root, args):
    """What the live folder holds, what else lies there, and the configs of the releases that are asked for."""
    live = read_live(root)
    folder = live_folder(root)
    present = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    configs = {}
    for release in args.get("releases") or []:
        models = os.path.join(below(os.path.join(root, "snapshots"), release), "models")
        found = configs.setdefault(release, {})
        for name in sorted(os.listdir(models)) if os.path.isdir(models) else []:
            file = os.path.join(models, name, "config.pbtxt")
            if os.path.isfile(file):
                with open(file, "rb") as stream:
                    found[name] = stream.read(4 << 20).decode("utf-8")
    foreign = [name for name in present if name not in live["folders"] and not name.startswith(".")]
    return {"folders": live["folders"], "foreign": foreign, "configs": configs}


def op_control_key(root, args):
    """The secret that the server of this target wants to see before it loads anything; made when there is none."""
    path = os.path.join(root, "control.key")
    try:
        with open(path) as stream:
            return {"header": CONTROL_HEADER, "key": stream.read().strip()}
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    key = binascii.hexlify(os.urandom(24)).decode("ascii")
    write_whole(path, key.encode("ascii"), 0o600)
    return {"header": CONTROL_HEADER, "key": key}


def op_control(root, args):
    """Note where the server is: ``url``, ``headers``, and the paths of TLS files that the agent can read."""
    require_lock(root, args["token"])
    said = {name: args.get(name) for name in ("url", "headers", "ca", "cert", "key")}
    write_json(os.path.join(root, "control.json"), said, 0o600)


def ask_triton(root, method, path, body=None, timeout=10.0):
    """One request to the server: (status, what it said). The status is None when no answer came in time."""
    import http.client
    import ssl
    import urllib.error
    import urllib.request

    control = read_json(os.path.join(root, "control.json"))
    if control is None:
        raise Refused("server", "nobody said where this target's server is")
    headers = dict(control.get("headers") or {})
    with contextlib.suppress(OSError):
        with open(os.path.join(root, "control.key")) as stream:
            headers[CONTROL_HEADER] = stream.read().strip()
    handlers = [urllib.request.ProxyHandler({})]
    if control["url"].startswith("https:"):
        context = ssl.create_default_context(cafile=control.get("ca"))
        if control.get("cert"):
            context.load_cert_chain(control["cert"], control.get("key"))
        handlers.append(urllib.request.HTTPSHandler(context=context))
    data = None if body is None else json.dumps(body).encode("utf-8")
    request = urllib.request.Request(control["url"] + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as answer:
            text = answer.read()
            return answer.status, json.loads(text.decode("utf-8")) if text else {}
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["error"]
        return error.code, text
    except socket.timeout:
        return None, "no answer within %g s" % timeout
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), socket.timeout):
            return None, "no answer within %g s" % timeout
        raise Refused("server", "the server at %s does not answer: %s" % (control["url"], error))


def index_of(root, folder):
    """Version → (state, reason) of one model, as the server's index says."""
    status, said = ask_triton(root, "POST", "/v2/repository/index", {}, 30.0)
    if status is None:
        raise Refused("server", "the server's index gave %s" % said)
    if status != 200:
        raise Refused("control", "the server refuses to show its index (HTTP %s): %s" % (status, said))
    return {
        item.get("version", ""): (item.get("state", ""), item.get("reason", ""))
        for item in said
        if item["name"] == folder
    }


def in_state(entries, *states):
    return sorted(version for version, (state, _) in entries.items() if state in states)


def agrees(wanted, served):
    """Whether all that a config says is in what the server says; what the server fills in is its own."""
    if isinstance(wanted, dict):
        return isinstance(served, dict) and all(
            name in served and agrees(value, served[name]) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(served, list)
            and len(wanted) == len(served)
            and all(agrees(one, other) for one, other in zip(wanted, served))
        )
    if isinstance(wanted, bool) or isinstance(served, bool) or wanted is None:
        return wanted == served
    if str(wanted) == str(served):
        return True
    try:
        return abs(float(wanted) - float(served)) <= 1e-6 * abs(float(wanted))
    except (TypeError, ValueError):
        return False


def copy_blob(root, digest, target):
    """A file of its own with a blob's bytes; shares blocks where the file system can."""
    with open(blob_path(root, digest), "rb") as source, open(target, "wb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), FICLONE, source.fileno())
        except OSError:
            shutil.copyfileobj(source, copy, BLOCK)
        copy.flush()
        os.fchmod(copy.fileno(), 0o644)
        os.fsync(copy.fileno())


def make_folder(root, target, files):
    """A folder with these files, durable."""
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    for path, item in sorted(files.items()):
        file = below(target, path)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        copy_blob(root, item["sha256"], file)
    for base, _, _ in os.walk(target):
        os.chmod(base, 0o755)
        sync_folder(base)


def has_files(folder, files):
    return os.path.isdir(folder) and whole(folder, {"files": files})


def staged_version(root, folder, version):
    return os.path.join(staging_folder(root), plain_name(folder), plain_name(str(version)))


def stage_version(root, folder, version, files):
    """Have a version whole in live-staging/; what it has been made for renames it away."""
    target = staged_version(root, folder, version)
    marker = target + ".whole"
    said = {"files": files}
    if read_json(marker) == said and has_files(target, files):
        return target
    with contextlib.suppress(OSError):
        os.unlink(marker)
    make_folder(root, target, files)
    write_json(marker, said)
    return target


def live_stage(root, op, args):
    """Copy what a folder will need, so that the switch itself is a rename."""
    there = os.path.join(live_folder(root), plain_name(op["folder"]))
    for version, files in sorted(op["versions"].items()):
        if not has_files(os.path.join(there, plain_name(version)), files):
            stage_version(root, op["folder"], version, files)


def later(root, live, path):
    """A time beyond every one that Triton has seen in a model's folder: it reloads only when the newest grew, and a
    clock that was set back must not hide a change."""
    newest = int(live["stamp"])
    for base, _, names in os.walk(path):
        for name in ["", *names]:
            with contextlib.suppress(OSError):
                stat = os.lstat(os.path.join(base, name) if name else base)
                newest = max(newest, int(stat.st_mtime_ns), int(stat.st_ctime_ns))
    return max(newest + 1000000, int(time.time() * 1e9))


def condition_holds(root, op):
    """An operation with ``if`` is done only while of each of its lists one item holds: a folder is on disk as that
    ``state`` (config and files) says."""
    if not op.get("if"):
        return True
    folders = read_live(root)["folders"]

    def holds(item):
        text, record = read_config(root, item["folder"]), folders.get(item["folder"])
        if text is None or record is None:
            return False
        return text_digest(json.dumps([text, record["files"]], sort_keys=True)) == item["state"]

    return all(any(holds(item) for item in either) for either in op["if"])


def read_config(root, folder):
    try:
        with open(os.path.join(live_folder(root), plain_name(folder), "config.pbtxt"), "rb") as stream:
            return stream.read().decode("utf-8")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return None


def live_put(root, op, args):
    """Have versions, files and config of a folder on disk; versions that are there beside them stay.

    The config names the versions that are served, so it goes last: it is the switch. ``take`` is a folder whose
    versions may be renamed away: a candidate that is not loaded any more.
    """
    folder = plain_name(op["folder"])
    live = read_live(root)
    record = live["folders"].get(folder)
    target = os.path.join(live_folder(root), folder)
    os.makedirs(staging_folder(root), exist_ok=True)
    if record is None and os.path.lexists(target):
        if live.get("making") != folder:
            raise Refused("foreign", "'%s' lies in the repository, and tritonforge did not put it there" % folder)
        throw_away(root, target)  # renamed by an operation that was killed before it could note it
    if record is None or not os.path.isdir(target):
        put_new(root, live, folder, target, op)
        return
    lacking = {
        version: files
        for version, files in op["versions"].items()
        if not has_files(os.path.join(target, plain_name(version)), files)
    }
    for version in set(lacking) & set(record["versions"]):
        if record["versions"][version] != lacking[version]:
            raise Refused("version", "version %s of '%s' stands for other files already" % (version, folder))
    files = {
        path: item
        for path, item in op["files"].items()
        if record["files"].get(path) != item or not whole(target, {"files": {path: item}})
    }
    gone = [path for path in record["files"] if path not in op["files"]]
    config = read_config(root, folder) != op["config"]
    if not lacking and not files and not gone and not config:
        if record["config"] != op["config"]:
            record.update(config=op["config"], loaded=None)
            write_live(root, live)
        return
    record["loaded"] = None
    write_live(root, live)
    for version, wanted in sorted(lacking.items()):
        source = None
        if op.get("take"):
            source = os.path.join(live_folder(root), plain_name(op["take"]), version)
        if source is None or not has_files(source, wanted):
            source = stage_version(root, folder, version, wanted)
        place = os.path.join(target, version)
        if os.path.isdir(place):
            throw_away(root, place)
        take_version(source, place)
        record["versions"][version] = wanted
    for path, item in sorted(files.items()):
        staged = os.path.join(staging_folder(root), ".file")
        copy_blob(root, item["sha256"], staged)
        place = below(target, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.rename(staged, place)
        record["files"][path] = item
    for path in gone:
        with contextlib.suppress(OSError):
            os.unlink(below(target, path))
        del record["files"][path]
    stamp = later(root, live, target)
    for path in files:
        os.utime(below(target, path), ns=(stamp, stamp))
    replace_config(root, target, op["config"], stamp)
    record["config"], live["stamp"] = op["config"], stamp
    write_live(root, live)


def put_new(root, live, folder, target, op):
    """A folder that was not there: made whole beside, then renamed."""
    staged = os.path.join(staging_folder(root), ".new")
    make_folder(root, staged, op["files"])
    for version, files in sorted(op["versions"].items()):
        take_version(stage_version(root, folder, version, files), os.path.join(staged, plain_name(version)))
    stamp = later(root, live, staged)
    replace_config(root, staged, op["config"], stamp)
    live["making"] = folder
    write_live(root, live)
    os.rename(staged, target)
    sync_folder(os.path.dirname(target))
    live["stamp"] = stamp
    del live["making"]
    live["folders"][folder] = {
        "config": op["config"],
        "files": op["files"],
        "versions": op["versions"],
        "kind": op.get("kind", "model"),
        "loaded": None,
    }
    write_live(root, live)


def take_version(source, place):
    os.rename(source, place)
    with contextlib.suppress(OSError):
        os.unlink(source + ".whole")


def replace_config(root, target, text, stamp):
    staged = os.path.join(staging_folder(root), ".config")
    write_whole(staged, text.encode("utf-8"))
    os.utime(staged, ns=(stamp, stamp))
    os.rename(staged, os.path.join(target, "config.pbtxt"))
    sync_folder(target)


def throw_away(root, path):
    """Out of the live folder by one rename; then it can be deleted file by file."""
    os.makedirs(staging_folder(root), exist_ok=True)
    doomed = os.path.join(staging_folder(root), ".gone-%s" % beat())
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def live_drop(root, op, args):
    """Delete a folder that is not loaded any more, or versions of it that are not served."""
    folder = plain_name(op["folder"])
    live = read_live(root)
    target = os.path.join(live_folder(root), folder)
    record = live["folders"].get(folder)
    if record is None:
        return
    for version in op.get("versions") or []:
        place = os.path.join(target, plain_name(version))
        if os.path.isdir(place):
            throw_away(root, place)
        if record["versions"].pop(version, None) is not None and record["loaded"] is not None:
            record["loaded"] = state_digest(record)  # what is served has not changed
    if op.get("versions") is None:
        if os.path.isdir(target):
            throw_away(root, target)
        shutil.rmtree(os.path.join(staging_folder(root), folder), ignore_errors=True)
        del live["folders"][folder]
    write_live(root, live)


def live_load(root, op, args):
    """Have the server serve exactly ``versions`` of a folder under the config on disk; the index decides."""
    folder = plain_name(op["folder"])
    live = read_live(root)
    record = live["folders"].get(folder)
    if record is None:
        raise Refused("load", "'%s' is not in the live folder" % folder)
    wanted, digest = sorted(op["versions"]), state_digest(record)
    if record["loaded"] == digest and in_state(index_of(root, folder), "READY") == wanted:
        return
    path = "/v2/repository/models/%s/load" % folder
    ends = time.monotonic() + args["seconds"]
    status, said = ask_triton(root, "POST", path, {}, args["seconds"])
    if status is None:
        ends = time.monotonic() + args["seconds"]  # unknown, not failed: the server goes on loading
    while True:
        entries = index_of(root, folder)
        moving = in_state(entries, "LOADING")
        ready = in_state(entries, "READY")
        good = ready == wanted and not moving and serves_config(root, folder, wanted, op.get("expect"))
        if status in (None, 200) and good:
            break
        if (status is not None and not moving) or time.monotonic() >= ends:
            reasons = [reason for _, (_, reason) in sorted(entries.items()) if reason and reason != "unloaded"]
            why = (
                said
                if status not in (None, 200)
                else "the server answered, and serves version %s" % (", ".join(ready) or "none")
            )
            if status == 200 and ready == wanted:
                why = "the server answered, and serves another config than the one on disk"
            raise Refused("load", "'%s' did not load: %s" % (folder, why), reasons=reasons or None)
        time.sleep(0.1)
    live = read_live(root)
    live["folders"][folder]["loaded"] = digest
    write_live(root, live)


def serves_config(root, folder, versions, expect):
    if not expect:
        return True
    for version in versions:
        status, said = ask_triton(root, "GET", "/v2/models/%s/versions/%s/config" % (folder, version), None, 30.0)
        if status != 200 or not agrees(expect, said):
            return False
    return True


def live_unload(root, op, args):
    """End a folder's models; requests in flight end first."""
    folder = plain_name(op["folder"])
    live = read_live(root)
    record = live["folders"].get(folder)
    entries = index_of(root, folder)
    if in_state(entries, "READY", "LOADING"):
        if record is not None and record["loaded"] is not None:
            record["loaded"] = None
            write_live(root, live)
        status, said = ask_triton(root, "POST", "/v2/repository/models/%s/unload" % folder, {}, args["seconds"])
        if status not in (None, 200):
            raise Refused("load", "'%s' cannot be unloaded: %s" % (folder, said))
    ends = time.monotonic() + args["seconds"]
    while in_state(entries, "READY", "LOADING", "UNLOADING"):
        entries = index_of(root, folder)
        if time.monotonic() >= ends:
            raise Refused("load", "'%s' was still loaded after %g s" % (folder, args["seconds"]))
        time.sleep(0.05)


def live_quiet(root, op, args):
    """Wait until nobody asks these folders any more, ``seconds`` at most: a router that was just switched may still
    hold requests that it took under its config before."""
    ends, before, since = time.monotonic() + op["seconds"], None, time.monotonic()
    while time.monotonic() < ends:
        now_asked, still = {}, 1.0
        for folder in op["folders"]:
            status, said = ask_triton(root, "GET", "/v2/models/%s/stats" % plain_name(folder), None, 10.0)
            for item in said["model_stats"] if status == 200 else []:
                good, bad = item["inference_stats"]["success"], item["inference_stats"]["fail"]
                count = int(good.get("count", 0)) + int(bad.get("count", 0))
                now_asked[folder + "/" + item["version"]] = count
                if count:
                    mean = (int(good.get("ns", 0)) + int(bad.get("ns", 0))) / 1e9 / count
                    still = max(still, 3.0 * mean)
        if now_asked != before:
            before, since = now_asked, time.monotonic()
        if not now_asked or time.monotonic() - since >= still:
            return
        time.sleep(0.1)


def live_make(root, op, args):
    """Have the folders there, so that a server can be started on them."""
    os.makedirs(live_folder(root), exist_ok=True)
    os.makedirs(staging_folder(root), exist_ok=True)


def live_sweep(root, op, args):
    """Delete what was copied and is not needed any more."""
    shutil.rmtree(staging_folder(root), ignore_errors=True)


LIVE = {
    "make": live_make,
    "sweep": live_sweep,
    "stage": live_stage,
    "put": live_put,
    "load": live_load,
    "unload": live_unload,
    "drop": live_drop,
    "quiet": live_quiet,
}
FILES_ONLY = ("make", "sweep", "stage", "put", "drop")


@contextlib.contextmanager
def applying(root):
    """One change of the live folder at a time; taken before ``alone``, which is only held in between."""
    fd = os.open(os.path.join(root, ".applying"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def op_apply(root, args, shared=False):
    """Do ``ops`` in order; each does nothing where it is done already. ``seconds`` is the longest for one load.

    With ``shared`` other operations may come in between, and the dead-man timer hears of each that is done.
    ``offline``: the server does not run, so only what is on disk changes.
    """
    done = 0
    try:
        for op in args["ops"]:
            sign_of_life(root, args, shared)
            if args.get("offline") and op["do"] not in FILES_ONLY:
                continue
            if condition_holds(root, op):
                LIVE[op["do"]](root, op, args)
            done += 1
    finally:
        with contextlib.suppress(Refused):
            sign_of_life(root, args, shared)
    return {"done": done}


def sign_of_life(root, args, shared):
    if not shared:
        require_lock(root, args["token"])
        return
    with alone(root):
        require_lock(root, args["token"])
        pending = read_json(pending_path(root))
        if pending is not None and pending["token"] == args["token"]:
            write_json(pending_path(root), dict(pending, beat=beat()), 0o600)


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
    "route": op_route,
    "arm": op_arm,
    "confirm": op_confirm,
    "disarm": op_disarm,
    "live": op_live,
    "control_key": op_control_key,
    "control": op_control,
    "apply": op_apply,
}


def main():
    parser = argparse.ArgumentParser(description="tritonforge's hand on a target")
    parser.add_argument("--root", required=True)
    parser.add_argument("operation", choices=sorted([*OPERATIONS, "watch", "serve"]))
    given = parser.parse_args()
    os.makedirs(given.root, exist_ok=True)
    if given.operation == "watch":
        op_watch(given.root, {})
        return
    if given.operation == "serve":
        serve(given.root)
        return
    text = sys.stdin.readline()  # one line: not every way to here can say that it has ended
    print(json.dumps(answer(given.root, given.operation, text)))


def serve(root):
    """Answer line by line, for as long as somebody asks: ``[operation, arguments]``. A program takes longer to start
    than most operations take."""
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever is told to stop may have more to ask, and ends this
        signal.signal(number, signal.SIG_IGN)
    for line in iter(sys.stdin.readline, ""):
        os.makedirs(root, exist_ok=True)
        operation, args = json.loads(line)
        print(json.dumps(answer(root, operation, json.dumps(args))), flush=True)


def answer(root, operation, text):
    """What an operation says, or why it was not done."""
    try:
        args = json.loads(text) if text.strip() else {}
        if operation == "apply":  # loads take long: others may read meanwhile
            with applying(root):
                return {"ok": op_apply(root, args, shared=True)}
        with alone(root):
            return {"ok": OPERATIONS[operation](root, args)}
    except Refused as refused:
        return {"error": {"code": refused.code, "message": str(refused), "facts": refused.facts}}
    except OSError as error:
        code = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "os"
        return {"error": {"code": code, "message": str(error), "facts": {"errno": error.errno}}}


if __name__ == "__main__":
    main()
