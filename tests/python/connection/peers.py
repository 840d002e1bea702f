"""Peers for connection tests: the standard library's in a process of its own, and such that break the rules."""

import hmac
import os
import socket
import struct
import subprocess
import sys

UNDER_PYHOST = 'pyhost' in os.path.basename(sys.executable)
SECONDS = 30  # how long anything may take before a test fails
STOCK_PYTHON = '/usr/bin/python3'


def run_stock(program, *arguments):
    """Starts the standard library's multiprocessing with a program; it inherits nothing from pyhost but its pipes."""
    return subprocess.Popen([STOCK_PYTHON, '-I', '-c', program, *map(str, arguments)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(case, process):
    """The output of a stock peer that must have ended well."""
    try:
        output, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    case.assertEqual(process.returncode, 0, errors)
    return output


class RawPeer:
    """Speaks the frames of a connection over a bare socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(SECONDS)
        self.socket.connect(address)

    def send(self, message):
        self.socket.sendall(struct.pack('!i', len(message)) + message)

    def receive(self):
        size, = struct.unpack('!i', self._read(4))
        return self._read(size)

    def _read(self, size):
        data = b''
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def answer_as_old_client(peer, key):
    """Python 3.11's part of the handshake in a client: bare HMAC-MD5 answers, challenges of 20 bytes."""
    challenge = peer.receive()
    assert challenge.startswith(b'#CHALLENGE#'), challenge
    peer.send(hmac.new(key, challenge[11:], 'md5').digest())
    if peer.receive() != b'#WELCOME#':
        raise PermissionError('turned down')
    message = os.urandom(20)
    peer.send(b'#CHALLENGE#' + message)
    if peer.receive() != hmac.new(key, message, 'md5').digest():
        peer.send(b'#FAILURE#')
        raise PermissionError('wrong answer')
    peer.send(b'#WELCOME#')


def answer_as_current_client(peer, key, digest='sha384'):
    """The handshake of Python 3.12 and later in a client that prefers `digest` for its own challenge."""
    challenge = peer.receive()
    assert challenge.startswith(b'#CHALLENGE#{sha256}'), challenge
    peer.send(b'{sha256}' + hmac.new(key, challenge[11:], 'sha256').digest())
    if peer.receive() != b'#WELCOME#':
        raise PermissionError('turned down')
    message = b'{%s}%s' % (digest.encode(), os.urandom(40))
    peer.send(b'#CHALLENGE#' + message)
    expected = b'{%s}%s' % (digest.encode(), hmac.new(key, message, digest).digest())
    if peer.receive() != expected:
        peer.send(b'#FAILURE#')
        raise PermissionError('wrong answer')
    peer.send(b'#WELCOME#')
