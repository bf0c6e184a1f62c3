"""Programs and sockets of another machine over SSH, against a real sshd on loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from testbed.sshd import Sshd, make_key, serve

from tritonforge.errors import EnvironmentLacks, UsageError
from tritonforge.rollout import ssh_process
from tritonforge.rollout.ssh import SshHost
from tritonforge.rollout.ssh_docker import docker_host, engine_endpoint
from tritonforge.rollout.ssh_failures import ConnectionLost, unreached


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serve(tmp_path_factory.mktemp("sshd") / "s") as server:
        yield server


@pytest.fixture(scope="module")
def host(sshd: Sshd) -> Iterator[SshHost]:
    with SshHost(sshd.address, sshd.client) as host:
        yield host


def test_a_program_s_output_errors_and_code_come_back(host: SshHost) -> None:
    done = host.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.stdout, done.stderr, done.code) == (b"out\n", "err\n", 7)


@pytest.mark.parametrize(
    "word", ["a b", "it's", 'say "x"', "two\nlines", "$HOME `id` $(id) \\", "*", "", "-n", "ü€", "a;b|c&d>e"]
)
def test_arguments_arrive_as_they_were_given(host: SshHost, word: str) -> None:
    script = "import sys; sys.stdout.write(repr(sys.argv[1:]))"
    done = host.run([sys.executable, "-X", "utf8", "-c", script, word, "end"])
    assert done.text == repr([word, "end"])


def test_five_megabytes_of_any_bytes_go_there_and_back(host: SshHost, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    assert host.run(["cat"], stdin=data).stdout == data
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as stream:
        assert host.run(["cat"], stdin=stream).stdout == data


def test_a_code_of_255_is_the_program_s_own(host: SshHost) -> None:
    assert host.run(["sh", "-c", "exit 255"]).code == 255


def test_all_calls_share_one_connection(sshd: Sshd) -> None:
    before = (sshd.folder / "sshd.log").read_text().count("Accepted publickey")
    with SshHost(sshd.address, sshd.client) as host:
        for _ in range(3):
            host.run(["true"])
    assert (sshd.folder / "sshd.log").read_text().count("Accepted publickey") == before + 1


def test_calls_of_several_threads_do_not_meet(host: SshHost) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = host.run(["sh", "-c", f"sleep 0.1; echo {number}"]).text.strip()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: str(number) for number in range(6)}


def test_a_program_that_does_not_end_in_time_is_an_error(host: SshHost) -> None:
    began = time.monotonic()
    with pytest.raises(EnvironmentLacks, match=r"did not end within 0\.3 s") as caught:
        host.run(["sleep", "20"], timeout=0.3)
    assert not isinstance(caught.value, ConnectionLost) and time.monotonic() - began < 5
    assert host.run(["echo", "on"]).text == "on\n"


def test_a_port_there_is_a_port_here(host: SshHost) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"over there")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with host.tunnel(f"127.0.0.1:{server.server_port}") as local:
            assert local.startswith("127.0.0.1:") and local != f"127.0.0.1:{server.server_port}"
            assert ask_http(local) == b"over there"
        with pytest.raises(ConnectionRefusedError):
            ask_http(local)
        server.shutdown()


@contextlib.contextmanager
def unix_server(path: Path) -> Iterator[None]:
    """Answers each connection with what it is told, in capitals."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(self.request.recv(100).upper())

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_a_socket_there_is_a_private_socket_here(host: SshHost, tmp_path: Path) -> None:
    with unix_server(tmp_path / "there"), host.tunnel(str(tmp_path / "there")) as local:
        assert ask_unix(local, b"hello") == b"HELLO"
        folder = Path(local).parent
        assert folder.stat().st_mode & 0o777 == 0o700 and folder.stat().st_uid == os.getuid()
    assert not Path(local).exists()
    host.close()
    assert not folder.exists()


def test_a_socket_that_is_not_there_is_an_error_at_once(host: SshHost) -> None:
    with pytest.raises(EnvironmentLacks, match=r"/run/no-such\.sock .* cannot be opened") as caught:
        host.tunnel("/run/no-such.sock").__enter__()
    assert caught.value.hint is not None and "run there" in caught.value.hint


def test_a_port_that_nothing_listens_on_yet_can_have_its_tunnel(host: SshHost) -> None:
    with socket.socket() as later:
        later.bind(("127.0.0.1", 0))
        with host.tunnel(f"127.0.0.1:{later.getsockname()[1]}") as local:
            later.listen()
            with socket.create_connection(tuple_of(local)):
                accepted, _ = later.accept()
                accepted.close()


@pytest.mark.parametrize("remote", ["/a b", "/a:b", "nothing", "127.0.0.1", "-x:1", "/a\n-oX"])
def test_what_a_tunnel_cannot_lead_to_is_refused(host: SshHost, remote: str) -> None:
    with pytest.raises(UsageError, match="cannot be reached by a tunnel"):
        host.tunnel(remote).__enter__()


def test_an_sshd_that_forbids_forwarding_is_named(tmp_path: Path) -> None:
    settings = {"AllowStreamLocalForwarding": "no", "AllowTcpForwarding": "no"}
    with (
        unix_server(tmp_path / "there"),
        serve(tmp_path / "s", settings) as sshd,
        SshHost(sshd.address, sshd.client) as host,
    ):
        for remote in (str(tmp_path / "there"), f"127.0.0.1:{sshd.port}"):
            with pytest.raises(EnvironmentLacks, match="lets no tunnel through") as caught:
                host.tunnel(remote).__enter__()
            assert "AllowStreamLocalForwarding" in str(caught.value.hint)
        assert host.run(["echo", "programs run"]).text == "programs run\n"


def test_more_sessions_than_sshd_allows_is_named(tmp_path: Path) -> None:
    with serve(tmp_path / "s", {"MaxSessions": "1"}) as sshd, SshHost(sshd.address, sshd.client) as host:
        with pytest.raises(EnvironmentLacks, match="refused to run `echo`") as caught:
            host.run(["echo", "hello"])
        assert "MaxSessions" in str(caught.value.hint)


def test_a_connection_cut_in_the_middle_is_an_error_and_the_next_call_makes_it_anew(
    sshd: Sshd, host: SshHost, tmp_path: Path
) -> None:
    host.connect()
    cutting = threading.Timer(0.4, sshd.cut)
    cutting.start()
    began = time.monotonic()
    with pytest.raises(ConnectionLost, match=r"lost during `sleep`; whether that was done there is unknown") as caught:
        host.run(["sleep", "30"])
    cutting.join()
    assert time.monotonic() - began < 5 and caught.value.exit_code == 3
    assert host.run(["echo", "again"]).text == "again\n"


def test_a_connection_cut_between_two_calls_is_made_anew_unseen(sshd: Sshd, host: SshHost) -> None:
    for number in range(3):
        assert host.run(["echo", str(number)]).text == f"{number}\n"
        sshd.cut()
        time.sleep(0.05 + 0.05 * number)


def test_tunnels_keep_their_place_when_the_connection_is_made_anew(sshd: Sshd, host: SshHost, tmp_path: Path) -> None:
    with unix_server(tmp_path / "there"), host.tunnel(str(tmp_path / "there")) as local:
        assert ask_unix(local, b"one") == b"ONE"
        sshd.cut()
        host.run(["true"])
        assert ask_unix(local, b"two") == b"TWO"


@pytest.mark.slow
def test_a_machine_that_falls_silent_is_a_lost_connection(tmp_path: Path) -> None:
    with serve(tmp_path / "s") as sshd:
        options = dataclasses.replace(sshd.client, alive_interval=1, alive_count=2, connect_timeout=5)
        with SshHost(sshd.address, options) as host:
            host.connect()
            sshd.freeze()
            with pytest.raises(ConnectionLost, match="lost during `true`"):
                host.run(["true"])
            with pytest.raises(EnvironmentLacks, match="cannot be reached"):
                host.run(["true"])
        sshd.thaw()
        with SshHost(sshd.address, sshd.client) as host:
            assert host.run(["echo", "back"]).text == "back\n"


def test_an_unknown_host_key_is_refused_even_where_the_configuration_would_take_it(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host *\n  StrictHostKeyChecking no\n")
    (tmp_path / "empty").touch()
    options = dataclasses.replace(sshd.client, config=tmp_path / "config", known_hosts=tmp_path / "empty")
    with SshHost(sshd.address, options) as host, pytest.raises(EnvironmentLacks, match="is not known here") as caught:
        host.run(["true"])
    assert "fingerprint" in str(caught.value.hint) and (tmp_path / "empty").read_text() == ""


def test_another_host_key_than_the_known_one_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {other}\n")
    options = dataclasses.replace(sshd.client, known_hosts=tmp_path / "known")
    with (
        SshHost(sshd.address, options) as host,
        pytest.raises(EnvironmentLacks, match=r"host key .* is not the one that is known"),
    ):
        host.run(["true"])


def test_a_key_that_is_not_authorised_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    options = dataclasses.replace(sshd.client, identity=tmp_path / "stranger")
    with SshHost(sshd.address, options) as host, pytest.raises(EnvironmentLacks, match="does not accept") as caught:
        host.run(["true"])
    assert "ssh-copy-id" in str(caught.value.hint)


def test_a_machine_that_does_not_listen_is_unreachable(sshd: Sshd) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"root@127.0.0.1:{unused.getsockname()[1]}"
        with SshHost(address, sshd.client) as host, pytest.raises(EnvironmentLacks, match="cannot be reached"):
            host.run(["true"])


def test_a_program_that_listens_and_says_nothing_is_given_up(sshd: Sshd) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        options = dataclasses.replace(sshd.client, connect_timeout=1)
        address = f"root@127.0.0.1:{silent.getsockname()[1]}"
        with SshHost(address, options) as host, pytest.raises(EnvironmentLacks, match="cannot be reached"):
            host.run(["true"])


def test_a_configuration_that_ssh_does_not_take_is_named(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("NoSuchOption yes\n")
    options = dataclasses.replace(sshd.client, config=tmp_path / "config")
    with SshHost(sshd.address, options) as host, pytest.raises(EnvironmentLacks, match="its configuration") as caught:
        host.run(["true"])
    assert "nosuchoption" in str(caught.value.found).lower()


def test_the_user_s_configuration_names_the_machine_and_its_forwards_and_commands_do_not_disturb(
    sshd: Sshd, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        f"Host edge\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.address.partition('@')[0]}\n"
        f"  LocalForward 127.0.0.1:{sshd.port} 127.0.0.1:1\n  ExitOnForwardFailure yes\n  RequestTTY force\n"
        "  RemoteCommand echo wrong\n  ControlMaster auto\n  ControlPersist yes\n  LogLevel QUIET\n"
    )
    options = dataclasses.replace(sshd.client, config=tmp_path / "config")
    with SshHost("edge", options) as host:
        assert host.run(["printf", "%s", "a\r\n"]).stdout == b"a\r\n"
        with host.tunnel(f"127.0.0.1:{sshd.port}") as local, socket.create_connection(tuple_of(local)) as opened:
            assert opened.recv(8) == b"SSH-2.0-"


def test_what_the_shell_over_there_says_at_login_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "noisy").write_text(
        '#!/bin/sh\necho\necho "Welcome to the robot"\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    (tmp_path / "noisy").chmod(0o755)
    settings = {"ForceCommand": str(tmp_path / "noisy")}
    with serve(tmp_path / "s", settings) as sshd, SshHost(sshd.address, sshd.client) as host:
        assert host.run(["echo", "hello"]).text.endswith("hello\n")


@pytest.mark.parametrize(
    "address", ["", "-oProxyCommand=id", "a@-b", "a b", "a@b:99999", "a@b:0", "a@b:x", "x;id", "a@b/c"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no address for ssh"):
        SshHost(address)


@pytest.mark.parametrize("address", ["edge", "user@edge.local", "user@192.168.55.1:2222", "user@[fe80::1]:22"])
def test_addresses_are_as_ssh_names_them(address: str) -> None:
    assert SshHost(address).address == address


def test_nothing_is_left_when_this_process_is_killed(sshd: Sshd) -> None:
    options = sshd.client
    script = (
        "import time, pathlib\n"
        "from tritonforge.rollout.ssh import SshHost\n"
        "from tritonforge.rollout.ssh_process import SshOptions\n"
        f"options = SshOptions(pathlib.Path({str(options.identity)!r}), pathlib.Path('/dev/null'),"
        f" pathlib.Path({str(options.known_hosts)!r}))\n"
        f"host = SshHost({sshd.address!r}, options)\n"
        "host.connect(); print(host._master.pid, host._folder, flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid, folder = process.stdout.readline().split()
    process.kill()
    process.wait()
    process.stdout.close()
    ends = time.monotonic() + 5
    while alive(int(pid)):
        assert time.monotonic() < ends, "the connection outlives its owner"
        time.sleep(0.02)
    with SshHost(sshd.address, options) as host:
        host.connect()
    assert not Path(folder).exists()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_ends_the_call_and_leaves_the_connection_to_undo_with(sshd: Sshd) -> None:
    options = sshd.client
    script = (
        "import pathlib\n"
        "from tritonforge.rollout.ssh import SshHost\n"
        "from tritonforge.rollout.ssh_process import SshOptions\n"
        f"options = SshOptions(pathlib.Path({str(options.identity)!r}), pathlib.Path('/dev/null'),"
        f" pathlib.Path({str(options.known_hosts)!r}))\n"
        f"with SshHost({sshd.address!r}, options) as host:\n"
        "    host.connect(); master = host._master.pid; print('up', flush=True)\n"
        "    try: host.run(['sleep', '60'])\n"
        "    except KeyboardInterrupt: print(host.run(['echo', 'undone']).text, host._master.pid == master)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert out.split() == ["undone", "True"]


def test_without_the_ssh_program_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_process.shutil, "which", lambda name: None)
    with pytest.raises(EnvironmentLacks, match="ssh is not installed") as caught:
        SshHost("edge").run(["true"])
    assert "openssh-client" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("ssh: Could not resolve hostname edge: Name or service not known", "cannot be reached"),
        ("ssh: connect to host edge port 22: No route to host", "cannot be reached"),
        ("Received disconnect from 10.0.0.2 port 22:2: Too many authentication failures", "does not accept"),
        ("Bad owner or permissions on /home/u/.ssh/config", "does not accept its configuration"),
        ("something new", "cannot connect"),
        ("", "cannot connect"),
    ],
)
def test_what_ssh_says_becomes_an_error_with_a_way_out(said: str, message: str) -> None:
    error = unreached("user@edge:2222", said)
    assert message in error.message and error.hint and (said in str(error.found) or not said)


def test_the_engine_is_the_one_that_docker_host_names_there(tmp_path: Path) -> None:
    with unix_server(tmp_path / "engine"):
        environment = {"DOCKER_HOST": f"unix://{tmp_path / 'engine'}"}
        with serve(tmp_path / "s", environment=environment) as sshd, SshHost(sshd.address, sshd.client) as host:
            assert engine_endpoint(host) == str(tmp_path / "engine")
            with docker_host(host) as address:
                assert address.startswith("unix:///") and ask_unix(address[len("unix://") :], b"ping") == b"PING"


def test_an_engine_behind_a_port_there_is_a_socket_here(tmp_path: Path) -> None:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"engine")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        environment = {"DOCKER_HOST": f"tcp://127.0.0.1:{engine.server_address[1]}"}
        with (
            serve(tmp_path / "s", environment=environment) as sshd,
            SshHost(sshd.address, sshd.client) as host,
            docker_host(host) as address,
        ):
            assert ask_unix(address[len("unix://") :], b"") == b"engine"
        engine.shutdown()


@pytest.mark.parametrize(
    "value", ["tcp://10.0.0.1:2376", *(pytest.param(value, marks=pytest.mark.slow) for value in ("ssh://o", "npipe:o"))]
)
def test_an_engine_that_no_tunnel_leads_to_is_refused(tmp_path: Path, value: str) -> None:
    with serve(tmp_path / "s", environment={"DOCKER_HOST": value}) as sshd, SshHost(sshd.address, sshd.client) as host:
        with pytest.raises(EnvironmentLacks, match="cannot be reached through it") as caught:
            engine_endpoint(host)
        assert caught.value.found == value


def test_a_rootless_engine_is_found_by_its_runtime_folder(tmp_path: Path) -> None:
    if any(Path(path).exists() for path in ("/run/docker.sock", "/var/run/docker.sock")):
        pytest.skip("this machine has an engine at the usual socket, which comes first")
    # Without docker's own program, whose context comes first.
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("sh", "id", "cat", "true"):
        (programs / program).symlink_to(str(shutil.which(program)))
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": str(programs)}
    with serve(tmp_path / "s", environment=environment) as sshd, SshHost(sshd.address, sshd.client) as host:
        with pytest.raises(EnvironmentLacks, match="there is no Docker engine"):
            engine_endpoint(host)
        with unix_server(tmp_path / "docker.sock"):
            assert engine_endpoint(host) == str(tmp_path / "docker.sock")


def tuple_of(local: str) -> tuple[str, int]:
    name, _, port = local.rpartition(":")
    return name, int(port)


def ask_http(local: str) -> bytes:
    with socket.create_connection(tuple_of(local), 5) as opened:
        opened.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while part := opened.recv(4096):
            answer += part
    return answer.partition(b"\r\n\r\n")[2]


def ask_unix(path: str, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.settimeout(5)
        opened.connect(path)
        opened.sendall(data)
        return opened.recv(100)
