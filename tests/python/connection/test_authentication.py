"""Listener, Client and their handshake.  Runs under pyhost and under python3, whose standard library is the oracle."""

import multiprocessing.connection
import os
import socket
import struct
import tempfile
import threading
import unittest
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener, XmlListener, XmlClient
from unittest import mock

import peers
from peers import SECONDS, UNDER_PYHOST, RawPeer

KEY = b'the right key'

STOCK_CLIENT = '''
import sys
from multiprocessing.connection import Client
family, address, key = sys.argv[1:]
address = address if family == 'AF_UNIX' else ('127.0.0.1', int(address))
with Client(address, authkey=key.encode()) as connection:
    connection.send({'numbers': list(range(1000))})
    print(connection.recv())
    connection.send_bytes(b'x' * 100000)
    print(connection.recv())
'''

STOCK_SERVER = '''
import sys
from multiprocessing import AuthenticationError
from multiprocessing.connection import Listener
family, key = sys.argv[1:]
address = None if family == 'AF_UNIX' else ('127.0.0.1', 0)
with Listener(address, family, authkey=key.encode()) as listener:
    print(listener.address if family == 'AF_UNIX' else listener.address[1], flush=True)
    try:
        connection = listener.accept()
    except AuthenticationError:
        print('turned down')
        raise SystemExit
    with connection:
        print(sum(connection.recv()['numbers']))
        connection.send('first')
        print(len(connection.recv_bytes()))
        connection.send('second')
'''


class Served(unittest.TestCase):
    """A listener whose accept() runs in a thread; its result or exception is in `outcome()`."""

    family = 'AF_UNIX'

    def setUp(self):
        self.results = []

    def listen(self, key=KEY, kind=Listener):
        self.listener = kind(None if self.family == 'AF_UNIX' else ('127.0.0.1', 0), self.family, authkey=key)
        self.addCleanup(self.listener.close)
        self.start_accepting()
        return self.listener.address

    def start_accepting(self):
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        try:
            connection = self.listener.accept()
        except Exception as error:
            self.results.append(error)
        else:
            self.addCleanup(connection.close)
            self.results.append(connection)

    def outcome(self):
        self.thread.join(SECONDS)
        self.assertFalse(self.thread.is_alive(), 'accept() does not return')
        return self.results.pop()

    def assert_serves(self, address, key=KEY):
        """The listener still takes a client that does it right."""
        self.start_accepting()
        with Client(address, authkey=key) as client:
            with self.outcome() as server:
                client.send('hello')
                self.assertEqual(server.recv(), 'hello')


class Handshake(Served):
    def test_both_know_the_key(self):
        address = self.listen()
        with Client(address, authkey=KEY) as client, self.outcome() as server:
            server.send([1, 2])
            self.assertEqual(client.recv(), [1, 2])

    def test_no_key(self):
        address = self.listen(None)
        with Client(address) as client, self.outcome() as server:
            client.send_bytes(b'x')
            self.assertEqual(server.recv_bytes(), b'x')

    def test_wrong_key(self):
        address = self.listen()
        with self.assertRaises(AuthenticationError):
            Client(address, authkey=b'a wrong key')
        self.assertIsInstance(self.outcome(), AuthenticationError)
        self.assert_serves(address)

    def test_keys_must_be_bytes(self):
        with self.assertRaises(TypeError):
            Listener(family=self.family, authkey='text')
        with Listener(family=self.family) as listener, self.assertRaises(TypeError):
            Client(listener.address, authkey='text')

    def test_old_client(self):
        with RawPeer(self.listen()) as peer:
            peers.answer_as_old_client(peer, KEY)
            with self.outcome() as server:
                server.send_bytes(b'welcome')
                self.assertEqual(peer.receive(), b'welcome')

    def test_old_client_with_wrong_key(self):
        address = self.listen()
        with RawPeer(address) as peer:
            with self.assertRaises(PermissionError):
                peers.answer_as_old_client(peer, b'a wrong key')
        self.assertIsInstance(self.outcome(), AuthenticationError)
        self.assert_serves(address)

    @unittest.skipIf(not hasattr(multiprocessing.connection, '_create_response'), 'an old standard library')
    def test_current_client_with_any_digest(self):
        for digest in ('md5', 'sha256', 'sha384', 'sha3_256', 'sha3_384'):
            with self.subTest(digest=digest), RawPeer(self.listen()) as peer:
                peers.answer_as_current_client(peer, KEY, digest)
                with self.outcome() as server:
                    server.send_bytes(b'welcome')
                    self.assertEqual(peer.receive(), b'welcome')


class HandshakeOverTcp(Handshake):
    family = 'AF_INET'


class HostilePeers(Served):
    def refused(self, peer, kinds):
        error = self.outcome()
        self.assertIsInstance(error, kinds)
        return error

    def test_peer_that_leaves_at_once(self):
        address = self.listen()
        RawPeer(address).close()
        self.refused(None, (EOFError, OSError))
        self.assert_serves(address)

    def test_wrong_answers(self):
        kinds = AuthenticationError if UNDER_PYHOST else (AuthenticationError, AssertionError, OSError)
        for answer in (b'', b'x', b'{sha256}', b'{sha256}' + b'x' * 32, b'{nonsense}' + b'x' * 40, b'x' * 16, b'x' * 20,
                       b'{md5}' + b'x' * 200):
            with self.subTest(answer=answer):
                address = self.listen()
                with RawPeer(address) as peer:
                    peer.receive()
                    peer.send(answer)
                    self.refused(peer, kinds)
                self.assert_serves(address)

    def test_garbage(self):
        for garbage in (b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n', b'\xff' * 100, b'\0' * 100):
            with self.subTest(garbage=garbage):
                address = self.listen()
                with RawPeer(address) as peer:
                    peer.receive()
                    peer.socket.sendall(garbage)
                    self.refused(peer, AuthenticationError if UNDER_PYHOST else (AuthenticationError, OSError))
                self.assert_serves(address)

    def test_oversized_frames_are_refused_by_their_prefix(self):
        for prefix in (struct.pack('!i', 257), struct.pack('!i', 0x7fffffff), struct.pack('!iQ', -1, 1 << 50)):
            with self.subTest(prefix=prefix):
                address = self.listen()
                with RawPeer(address) as peer:
                    peer.receive()
                    peer.socket.sendall(prefix)
                    self.refused(peer, AuthenticationError if UNDER_PYHOST else OSError)
                self.assert_serves(address)

    def test_client_checks_the_server_too(self):
        for greeting in (b'', b'#CHALLENGE#', b'#CHALLENGE#short', b'nonsense' * 5,
                         b'#CHALLENGE#{nonsense}' + b'x' * 40):
            with self.subTest(greeting=greeting), socket.create_server(('127.0.0.1', 0)) as server:
                def serve():
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(struct.pack('!i', len(greeting)) + greeting)
                        connection.recv(1000)
                thread = threading.Thread(target=serve)
                thread.start()
                kinds = (AuthenticationError,) if UNDER_PYHOST else (AuthenticationError, AssertionError, EOFError,
                                                                     OSError)
                with self.assertRaises(kinds):
                    Client(server.getsockname(), authkey=KEY)
                thread.join(SECONDS)

    def test_server_that_cannot_prove_its_key(self):
        with socket.create_server(('127.0.0.1', 0)) as server:
            def serve():
                connection, _ = server.accept()
                peer = RawPeer.__new__(RawPeer)
                peer.socket = connection
                with peer:
                    peer.send(b'#CHALLENGE#' + b'x' * 20)
                    peer.receive()
                    peer.send(b'#WELCOME#')   # Pretends to be satisfied.
                    peer.receive()
                    peer.send(b'x' * 16)
                    peer.receive()
            thread = threading.Thread(target=serve)
            thread.start()
            with self.assertRaises(AuthenticationError):
                Client(server.getsockname(), authkey=KEY)
            thread.join(SECONDS)

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library waits for ever')
    def test_silent_peer(self):
        with mock.patch('multiprocessing.connection.CONNECTION_TIMEOUT', 0.2):
            address = self.listen()
            with RawPeer(address):
                error = self.refused(None, AuthenticationError)
            self.assertIn('0.2 seconds', str(error))
        self.assert_serves(address)

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library waits for ever')
    def test_the_time_limit_is_for_all_of_the_handshake(self):
        stop = threading.Event()
        with mock.patch('multiprocessing.connection.CONNECTION_TIMEOUT', 0.5):
            address = self.listen()
            with RawPeer(address) as peer:
                peer.receive()
                def dribble():
                    peer.socket.sendall(struct.pack('!i', 200))
                    while not stop.wait(0.1):
                        try:
                            peer.socket.sendall(b'x')
                        except OSError:
                            return
                thread = threading.Thread(target=dribble)
                thread.start()
                self.refused(peer, AuthenticationError)
                stop.set()
                thread.join(SECONDS)


class StockPeers(Served):
    """The standard library at the other end."""

    def shown(self, address):
        return address if self.family == 'AF_UNIX' else address[1]

    def test_stock_client(self):
        address = self.listen()
        client = peers.run_stock(STOCK_CLIENT, self.family, self.shown(address), KEY.decode())
        with self.outcome() as server:
            self.assertEqual(server.recv(), {'numbers': list(range(1000))})
            server.send('one')
            self.assertEqual(server.recv_bytes(), b'x' * 100000)
            server.send('two')
            self.assertEqual(peers.finish(self, client), 'one\ntwo\n')

    def test_stock_client_with_wrong_key(self):
        address = self.listen()
        client = peers.run_stock(STOCK_CLIENT, self.family, self.shown(address), 'a wrong key')
        self.assertIsInstance(self.outcome(), AuthenticationError)
        _, errors = client.communicate(timeout=SECONDS)
        self.assertIn('AuthenticationError', errors)
        self.assert_serves(address)

    def connect_to_stock(self, key):
        server = peers.run_stock(STOCK_SERVER, self.family, KEY.decode())
        address = server.stdout.readline().strip()
        return server, lambda: Client(address if self.family == 'AF_UNIX' else ('127.0.0.1', int(address)), authkey=key)

    def test_stock_server(self):
        server, connect = self.connect_to_stock(KEY)
        with connect() as client:
            client.send({'numbers': [1, 2, 3]})
            self.assertEqual(client.recv(), 'first')
            client.send_bytes(b'y' * 300000)
            self.assertEqual(client.recv(), 'second')
        self.assertEqual(peers.finish(self, server), '6\n300000\n')

    def test_stock_server_with_another_key(self):
        server, connect = self.connect_to_stock(b'a wrong key')
        with self.assertRaises(AuthenticationError):
            connect()
        self.assertEqual(peers.finish(self, server), 'turned down\n')


class StockPeersOverTcp(StockPeers):
    family = 'AF_INET'


class Addresses(unittest.TestCase):
    def test_family_follows_the_address(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'socket')
            with Listener(path) as listener:
                self.assertEqual(listener.address, path)
                self.assertTrue(os.path.exists(path))
            self.assertFalse(os.path.exists(path))
        with Listener(('127.0.0.1', 0)) as listener:
            self.assertNotEqual(listener.address[1], 0)
            self.assertIsNone(listener.last_accepted)

    def test_abstract_address(self):
        name = b'\0pyhost-test-%d' % os.getpid()
        with Listener(name, 'AF_UNIX', authkey=KEY) as listener:
            self.assertEqual(listener.address, name)
            thread = threading.Thread(target=lambda: listener.accept().close())
            thread.start()
            Client(name, authkey=KEY).close()
            thread.join(SECONDS)

    def test_last_accepted(self):
        with Listener(('127.0.0.1', 0)) as listener:
            client = socket.create_connection(listener.address)
            with client, listener.accept():
                self.assertEqual(listener.last_accepted, client.getsockname())

    def test_wrong_families_and_addresses(self):
        with self.assertRaises(ValueError):
            Listener(family='AF_PIPE')
        with self.assertRaises((TypeError, ValueError)):
            Client(12345)
        with self.assertRaises(ValueError):
            multiprocessing.connection.arbitrary_address('AF_NONSENSE')
        with self.assertRaises(OSError):
            Client('/nonexistent/socket')

    @unittest.skipUnless(UNDER_PYHOST, 'the standard library does not say which')
    def test_errors_name_the_address(self):
        with self.assertRaisesRegex(FileNotFoundError, '/nonexistent/socket'):
            Client('/nonexistent/socket')
        with Listener(('127.0.0.1', 0)) as listener:
            port = listener.address[1]
            with socket.socket() as bound:
                bound.bind(('127.0.0.1', 0))
                bound.listen()
                with self.assertRaisesRegex(OSError, f"'127.0.0.1', {bound.getsockname()[1]}"):
                    Listener(bound.getsockname())
        with self.assertRaisesRegex(ConnectionRefusedError, f"'127.0.0.1', {port}"):
            Client(('127.0.0.1', port))

    def test_closed_listener(self):
        listener = Listener()
        listener.close()
        listener.close()
        with self.assertRaisesRegex(OSError, 'listener is closed'):
            listener.accept()


class Xml(Served):
    family = 'AF_INET'

    def test_values_cross_as_xml(self):
        address = self.listen(kind=XmlListener)
        client = XmlClient(address, authkey=KEY)
        server = self.outcome()
        client.send({'a': [1, 2.5, 'three']})
        self.assertIn(b'<params>', server.recv_bytes())
        client.send((1, 'x'))
        self.assertEqual(server.recv(), [1, 'x'])
        client.close()


class PrivateNames(unittest.TestCase):
    """What CPython's tests use."""

    @unittest.skipIf(not hasattr(multiprocessing.connection, '_create_response'), 'an old standard library')
    def test_challenge_functions(self):
        from multiprocessing.connection import _create_response, _verify_challenge
        for message in (os.urandom(20), b'{sha256}' + os.urandom(40), b'{md5}' + os.urandom(40)):
            response = _create_response(KEY, message)
            _verify_challenge(KEY, message, response)
            for wrong in (response[:-1], response[:-1] + bytes([response[-1] ^ 1]), b'{sha3_256}' + response):
                with self.assertRaises(AuthenticationError):
                    _verify_challenge(KEY, message, wrong)
        for message in (b'', b'{nonsense}' + os.urandom(40), os.urandom(19) + b'x' * 30):
            with self.assertRaises(AuthenticationError):
                _create_response(KEY, message)


if __name__ == '__main__':
    unittest.main()
