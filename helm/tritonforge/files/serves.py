"""What `helm test` runs: asks Triton through the public Service, as a client would.

    serves.py ADDRESS_VARIABLE HOST HTTP_PORT GRPC_PORT plain|tls [MODEL...]

The address is taken from the environment where Kubernetes put it there, so that a cluster without DNS will do.
"""

import http.client
import os
import socket
import ssl
import sys
import time

variable, host, http_port, grpc_port, scheme = sys.argv[1:6]
models = sys.argv[6:]
address = os.environ.get(variable, host)
context = None
if scheme == "tls":
    # Whether it serves is asked here; whose certificate it has is for its clients to ask.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE


def asked(path):
    if context:
        connection = http.client.HTTPSConnection(address, int(http_port), timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection(address, int(http_port), timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def speaks_http2():
    """Whether the gRPC port answers an HTTP/2 preface with a SETTINGS frame, as RFC 9113 (3.4) has it."""
    with socket.create_connection((address, int(grpc_port)), timeout=5) as plain:
        if context:
            context.set_alpn_protocols(["h2"])
            stream = context.wrap_socket(plain)
        else:
            stream = plain
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        head = b""
        while len(head) < 9:
            more = stream.recv(9 - len(head))
            if not more:
                return False
            head += more
        return head[3] == 4


def try_until(what, look, ends):
    while True:
        try:
            found = look()
            if found in (200, True):
                print("ok: " + what)
                return
        except (OSError, http.client.HTTPException) as error:
            found = error
        if time.monotonic() > ends:
            sys.exit("failed: %s: %s" % (what, found))
        time.sleep(1)


ends = time.monotonic() + 60
try_until("the server is ready", lambda: asked("/v2/health/ready"), ends)
for model in models:
    try_until("the model %s is ready" % model, lambda model=model: asked("/v2/models/%s/ready" % model), ends)
try_until("the gRPC port speaks HTTP/2", speaks_http2, ends)
