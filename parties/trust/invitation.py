"""How two parties that never met come to pin each other's key: one line by any channel, and six words by telephone.

    inviter                                         invited
    a line: address, key, secret, expiry     -->    reads it; nothing has travelled between servers yet
                                      <== TLS ==    shows a leaf issued by a key that follows from the secret;
                                                    takes only a server whose leaf the key in the line has issued
                                             <--    Hello: name, address, keys, SHA-256 of its nonce
    Hello back: name, keys, its own nonce    -->
                                             <--    the nonce
    six words                                       six words, the same: each operator says yes at the own server

Whoever reads the line on its way can be the first to answer it, and whoever changes it can stand in the middle: in both
cases the words differ. They are drawn from both keys, the secret and both nonces, of which one is fixed before the
other is seen, so that no search for fitting keys helps: a chance of one in 2^66 for each try.
"""

import base64
import binascii
import hashlib
import re
import secrets
import time

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from mnemonic import Mnemonic

from parties.errors import SettingsError
from parties.trust.errors import InvitationExpired, InvitationUnreadable
from parties.trust.identity import KEY_BYTES, Identity, IdentityKey

SECRET_BYTES, NONCE_BYTES, CHECK_BYTES = 16, 32, 4
DEFAULT_HOURS, LONGEST_HOURS = 24, 72
WORDS, BITS_OF_A_WORD = 6, 11
PREFIX = "vfl-invitation-1."
_LINE_LIMIT = 1000


class Invitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    name: str
    """Of the party that invites."""
    address: str
    """HOST:PORT of its peer port, as the invited party reaches it."""
    key: bytes
    """Its identity key: 32 bytes, as long as a hash of it and more useful."""
    secret: bytes = msgspec.field()
    expires_at: int
    """Unix seconds."""

    @property
    def id(self) -> str:
        """How both sides name it, without its secret."""
        return hashlib.sha256(b"vfl invitation\0" + self.secret).hexdigest()[:32]

    @property
    def entry_issuer(self) -> IdentityKey:
        """Which key issues the certificate of whoever has read the line."""
        return IdentityKey(entry_key(self.secret).public_key().public_bytes_raw())

    @property
    def has_expired(self) -> bool:
        return time.time() >= self.expires_at

    def packed(self) -> bytes:
        return msgspec.msgpack.encode(self)

    def line(self) -> str:
        """For an e-mail, a chat or a sheet of paper; the last characters tell of a letter that got lost."""
        packed = self.packed()
        return PREFIX + base64.urlsafe_b64encode(packed + _check(packed)).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"Invitation(name={self.name!r}, address={self.address!r})"


def new_invitation(identity: Identity, address: str, hours: float = DEFAULT_HOURS) -> Invitation:
    secret = secrets.token_bytes(SECRET_BYTES)
    return Invitation(identity.name, address, identity.key.raw, secret, int(time.time() + hours * 3600))


def read_line(line: str) -> Invitation:
    """Raises InvitationUnreadable, InvitationExpired."""
    text = "".join(line[:_LINE_LIMIT].split())  # mail programs break long lines
    if not text.startswith(PREFIX):
        raise InvitationUnreadable(f"an invitation begins with {PREFIX}, this text does not")
    text = text.removeprefix(PREFIX)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        packed, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
        if not secrets.compare_digest(check, _check(packed)):
            raise InvitationUnreadable("a character of the invitation is missing or has changed")
        invitation = read_packed(packed)
        IdentityKey(invitation.key)
    except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError) as error:
        raise InvitationUnreadable("a character of the invitation is missing or has changed") from error
    if len(invitation.secret) != SECRET_BYTES or not is_address(invitation.address):
        raise InvitationUnreadable("the invitation contradicts itself")
    if invitation.has_expired:
        when = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(invitation.expires_at))
        raise InvitationExpired(f"the invitation of {invitation.name} was good until {when}")
    return invitation


def read_packed(packed: bytes) -> Invitation:
    """As `packed` made it. Raises msgspec.DecodeError."""
    return msgspec.msgpack.decode(packed, type=Invitation)


def entry_key(secret: bytes) -> Ed25519PrivateKey:
    """Issues the leaf with which the invited party enters: who can show one has read the line."""
    seed = HKDF(SHA256(), KEY_BYTES, salt=None, info=b"vfl invitation entry key").derive(secret)
    return Ed25519PrivateKey.from_private_bytes(seed)


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What each side says of itself, signed by its identity key."""

    invitation: str
    name: str
    address: str
    key: bytes
    cosigning_key: bytes
    nonce: bytes
    """SHA-256 of the nonce where the invited party says it first, and the nonce itself in the answer."""

    @property
    def identity_key(self) -> IdentityKey:
        return IdentityKey(self.key)


def six_words(invitation: Invitation, invited: Hello, nonces: tuple[bytes, bytes]) -> str:
    """The same at both sides, and only there. `nonces` are the inviter's and the invited party's."""
    parts = [invitation.secret, invitation.key, invited.key, invited.cosigning_key, *nonces]
    names = f"{invitation.name}\0{invited.name}\0".encode()
    number = int.from_bytes(hashlib.sha256(b"vfl six words\0" + b"".join(parts) + names).digest(), "big")
    words = Mnemonic("english").wordlist
    picked = [words[number >> (BITS_OF_A_WORD * at) & ((1 << BITS_OF_A_WORD) - 1)] for at in range(WORDS)]
    return " ".join(picked)


def same_words(typed: str, expected: str) -> bool:
    """However they were typed: upper case, hyphens, commas."""
    return secrets.compare_digest(" ".join(re.findall(r"[a-z]+", typed.lower())), expected)


def is_address(address: str) -> bool:
    """HOST:PORT, an IPv6 host in brackets."""
    parts = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]{1,253}):(\d{1,5})", address)
    return parts is not None and 1 <= int(parts[2]) <= 65535


def check_address(address: str) -> None:
    """Raises SettingsError."""
    if not is_address(address):
        raise SettingsError(f"{address!r} is no address", fix="Write HOST:PORT, such as vfl.example.org:7102.")


def _check(packed: bytes) -> bytes:
    return hashlib.sha256(b"vfl invitation line\0" + packed).digest()[:CHECK_BYTES]
