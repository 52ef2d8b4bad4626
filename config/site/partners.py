"""What the programs of the example site share: one question to each service, over its own protocol, with a time-out."""

import base64
import contextlib
import json
import os
import socket
import struct
import subprocess
import urllib.request

import zmq

HOST = "127.0.0.1"
TIMEOUT = 2.0


def port(service):
    return int(os.environ[f"{service.upper()}_PORT"])


@contextlib.contextmanager
def connection(address):
    """A stream to a TCP port of this host, or to a Unix socket, which is given by its path."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(TIMEOUT)
        stream.connect(address if isinstance(address, str) else (HOST, address))
        yield stream.makefile("rwb", buffering=0)


def ask(*frames):
    """The broker's answer."""
    context = zmq.Context.instance()
    with context.socket(zmq.REQ) as request:
        request.setsockopt(zmq.LINGER, 0)
        request.connect(f"tcp://{HOST}:{port('broker')}")
        request.send_multipart(frames)
        if not request.poll(TIMEOUT * 1000):
            raise TimeoutError("the broker does not answer")
        return request.recv_multipart()


def sql(statement):
    """What PostgreSQL gives for a statement, as text."""
    command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--command", statement]
    # Its host, port, user and database are in the environment (PGHOST, …).
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5 * TIMEOUT)
    if done.returncode != 0:
        raise OSError(done.stderr.strip())
    return done.stdout.strip()


def redis(command):
    """Redis' answer to an inline command, one line."""
    with connection(port("cache")) as stream:
        stream.write(command.encode() + b"\r\n")
        answer = stream.readline().decode().strip()
    if not answer or answer.startswith("-"):
        raise OSError(f"Redis: {answer or 'no answer'}")
    return answer[1:]


def setting(key, default):
    """A setting from etcd; the default where there is none."""
    range_of_one = json.dumps({"key": base64.b64encode(key.encode()).decode()}).encode()
    url = f"http://{HOST}:{port('settings')}/v3/kv/range"
    with urllib.request.urlopen(url, range_of_one, timeout=TIMEOUT) as answer:
        found = json.load(answer).get("kvs", [])
    return base64.b64decode(found[0]["value"]).decode() if found else default


def store_image(name, image):
    """Puts an image into memcached."""
    with connection(port("images")) as stream:
        stream.write(f"set {name} 0 0 {len(image)}\r\n".encode() + image + b"\r\n")
        if stream.readline() != b"STORED\r\n":
            raise OSError("memcached did not store the image")


def announce(topic, text):
    """Publishes a message to the MQTT broker (MQTT 3.1.1, quality of service 0)."""
    client = b"\x00\x04MQTT\x04\x02\x00\x3c" + _text(f"site-{os.getpid()}")
    with connection(os.environ["BUS_SOCKET"]) as stream:
        stream.write(b"\x10" + bytes([len(client)]) + client)
        if stream.read(4) != b"\x20\x02\x00\x00":
            raise OSError("the MQTT broker refused the connection")
        message = _text(topic) + text.encode()
        stream.write(b"\x30" + bytes([len(message)]) + message + b"\xe0\x00")


def _text(text):
    return struct.pack("!H", len(text)) + text.encode()
