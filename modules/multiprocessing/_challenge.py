"""The handshake by which two ends of a connection prove that they know the same key.

Each side sends a challenge (random bytes) and checks the other's answer, an HMAC of the challenge under the
shared key; the key itself never travels.  The messages are those of CPython, so that either end may be a
standard library's, old or new:

* **Current** peers (3.12 and later) put the name of a digest in braces before the random bytes of a challenge
  and before an answer: ``{sha256}...``.  The HMAC covers the name as well, so nobody can talk a peer down.
* **Older** peers (3.11 and before) send a bare challenge of 20 bytes and bare HMAC-MD5 answers of 16 bytes.
  Nothing else has these lengths, which is how either form is told from the other.

A peer is not trusted before the handshake ends: messages longer than `LARGEST_MESSAGE` are refused by their
length prefix, before anything is allocated for them.
"""

import os

from .context import AuthenticationError

__all__ = ()

MESSAGE_LENGTH = 40
LARGEST_MESSAGE = 256

CHALLENGE = b'#CHALLENGE#'
WELCOME = b'#WELCOME#'
FAILURE = b'#FAILURE#'

DIGESTS = frozenset([b'md5', b'sha256', b'sha384', b'sha3_256', b'sha3_384'])
_LONGEST_DIGEST_NAME = max(map(len, DIGESTS))

OLD_CHALLENGE_LENGTH = 20
OLD_ANSWER_LENGTH = 16


def deliver_challenge(connection, authkey, digest_name='sha256'):
    """Challenges the peer of `connection`; raises AuthenticationError if it does not know `authkey`."""
    _check_key(authkey)
    message = b'{%s}%s' % (digest_name.encode('ascii'), os.urandom(MESSAGE_LENGTH))
    connection.send_bytes(CHALLENGE + message)
    response = connection.recv_bytes(LARGEST_MESSAGE)
    try:
        verify_challenge(authkey, message, response)
    except AuthenticationError:
        connection.send_bytes(FAILURE)
        raise
    connection.send_bytes(WELCOME)


def answer_challenge(connection, authkey):
    """Answers the challenge of the peer of `connection`; raises AuthenticationError if it is turned down."""
    _check_key(authkey)
    message = connection.recv_bytes(LARGEST_MESSAGE)
    if not message.startswith(CHALLENGE):
        raise AuthenticationError(f'expected a challenge, got {_excerpt(message)}')
    message = message[len(CHALLENGE):]
    if len(message) < OLD_CHALLENGE_LENGTH:
        raise AuthenticationError(
            f'challenge of {len(message)} bytes is too short (at least {OLD_CHALLENGE_LENGTH})')
    connection.send_bytes(create_response(authkey, message))
    if connection.recv_bytes(LARGEST_MESSAGE) != WELCOME:
        raise AuthenticationError('digest sent was rejected: the peer has another authkey')


def create_response(authkey, message):
    """The answer to the challenge `message`, in the form (old or current) that the challenge has."""
    digest_name, _ = split_digest_name(message)
    if not digest_name:
        try:
            return _hmac(authkey, message, 'md5')
        except ValueError:
            # MD5 is switched off on this machine.  A current peer that sent a bare challenge can cope.
            digest_name = 'sha256'
    return b'{%s}%s' % (digest_name.encode('ascii'), _hmac(authkey, message, digest_name))


def verify_challenge(authkey, message, response):
    """Raises AuthenticationError unless `response` answers the challenge `message`."""
    import hmac
    digest_name, received = split_digest_name(response)
    digest_name = digest_name or 'md5'
    try:
        expected = _hmac(authkey, message, digest_name)
    except ValueError:
        raise AuthenticationError(f'the peer uses {digest_name}, which is not available here') from None
    if len(received) != len(expected):
        raise AuthenticationError(
            f'a {digest_name} digest has {len(expected)} bytes, received {len(received)}')
    if not hmac.compare_digest(expected, received):
        raise AuthenticationError('digest received was wrong: the peer has another authkey')


def split_digest_name(message):
    """Splits a challenge or an answer into (digest name, the rest); the name is '' in the old form."""
    if len(message) in (OLD_CHALLENGE_LENGTH, OLD_ANSWER_LENGTH):
        return '', message
    end = message.find(b'}', 1, _LONGEST_DIGEST_NAME + 2) if message.startswith(b'{') else -1
    if end > 0 and message[1:end] in DIGESTS:
        return message[1:end].decode('ascii'), message[end + 1:]
    raise AuthenticationError(
        f'neither an old message nor one that names a supported digest: {_excerpt(message)}')


def _hmac(authkey, message, digest_name):
    import hmac
    return hmac.new(authkey, message, digest_name).digest()


def _check_key(authkey):
    if not isinstance(authkey, bytes):
        raise ValueError(f'authkey must be bytes, not {type(authkey).__name__}')


def _excerpt(message):
    shown = bytes(message[:32])
    return f'{len(message)} bytes starting with {shown!r}'
