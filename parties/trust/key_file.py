"""A party's private keys on disk: encrypted with a passphrase that is kept in a file of its own.

    identity.key      the identity key
    identity.former   after a rotation, while it is needed: the key before, and a certificate that it has issued

The passphrase file may lie anywhere: a systemd credential, a Docker secret, a mounted share. Where it lies beside the
key, as `vfl party init` leaves it, it protects copies of the key file alone, and not the folder (docs/trust.md).
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from parties.errors import SettingsError, StorageFailed
from parties.private_files import write_private
from parties.trust.identity import KEY_BYTES, Identity
from parties.trust.rotation import SignedRotation

KEY_FILE, FORMER_FILE = "identity.key", "identity.former"
SALT_BYTES, NONCE_BYTES = 16, 12
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 15, 8, 1
"""32 MiB and about a tenth of a second for each guess of a passphrase."""
_FORMAT, _FORMER_FORMAT = "vfl-identity-1", "vfl-former-identities-1"


class FormerIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of an identity key that another one has followed."""

    signed: SignedRotation
    """What names the key that follows."""
    cosigning_key: bytes
    private: bytes
    """Empty once the key counts no more."""
    leaf: bytes
    """The last certificate that it issued, with its key (PEM): peers that still pin the old key are told with it."""
    leaf_made_at: float
    """Unix seconds."""

    def __repr__(self) -> str:
        return "FormerIdentity()"


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    name: str
    salt: bytes
    nonce: bytes
    ciphertext: bytes


class KeyFolder:
    """Raises SettingsError where a file is missing, damaged or of another passphrase, StorageFailed where it cannot be
    written."""

    def __init__(self, folder: Path, passphrase_path: Path) -> None:
        self._folder, self._passphrase_path = folder, passphrase_path

    def identity(self) -> Identity:
        path = self._folder / KEY_FILE
        if not path.exists():
            raise SettingsError(
                f"{path} is missing: without its key this party cannot prove to its peers who it is",
                fix="Put the key file back from your backup. If there is none, make a new party with `vfl party init` "
                "and enrol it with every peer again: to them it is a stranger.",
            )
        name, raw = self._read(path, _FORMAT)
        return Identity(name, Ed25519PrivateKey.from_private_bytes(raw))

    def save(self, identity: Identity) -> None:
        raw = identity.private.private_bytes_raw()
        self._write(self._folder / KEY_FILE, _FORMAT, identity.name, raw)

    def former(self) -> list[FormerIdentity]:
        """The newest first; none where the key was never rotated, or everybody knows it."""
        path = self._folder / FORMER_FILE
        if not path.exists():
            return []
        _, raw = self._read(path, _FORMER_FORMAT)
        return msgspec.msgpack.decode(raw, type=list[FormerIdentity])

    def save_former(self, name: str, former: Sequence[FormerIdentity]) -> None:
        path = self._folder / FORMER_FILE
        if former:
            self._write(path, _FORMER_FORMAT, name, msgspec.msgpack.encode(former))
        else:
            path.unlink(missing_ok=True)

    def _read(self, path: Path, kind: str) -> tuple[str, bytes]:
        """The party's name and what is encrypted."""
        passphrase = self._passphrase()
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=_KeyFile)
            cipher = _cipher(passphrase, stored.salt)
            return stored.name, cipher.decrypt(stored.nonce, stored.ciphertext, _bound_to(kind, stored.name))
        except OSError as error:
            raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise SettingsError(f"{path} is damaged: {error}", fix="Put it back from your backup.") from error
        except InvalidTag as error:
            raise SettingsError(
                f"{path} does not open with the passphrase in {self._passphrase_path}",
                fix="Put back the passphrase file that was made with this key.",
            ) from error

    def _write(self, path: Path, kind: str, name: str, content: bytes) -> None:
        """scrypt, then AES-256-GCM, bound to the name of the party and to what the file is."""
        salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
        ciphertext = _cipher(self._passphrase(), salt).encrypt(nonce, content, _bound_to(kind, name))
        try:
            write_private(path, msgspec.json.encode(_KeyFile(kind, name, salt, nonce, ciphertext)) + b"\n")
        except OSError as error:
            raise StorageFailed(
                f"{path} cannot be written: {error.strerror}",
                safe="The key is the same as before.",
            ) from error

    def _passphrase(self) -> bytes:
        try:
            return self._passphrase_path.read_bytes().strip()
        except OSError as error:
            raise SettingsError(
                f"the passphrase of this party's key cannot be read from {self._passphrase_path}: {error.strerror}",
                fix="Name its file in party.toml as [identity] passphrase_file, or in VFL_IDENTITY__PASSPHRASE_FILE.",
            ) from error


def _bound_to(kind: str, name: str) -> bytes:
    return name.encode() if kind == _FORMAT else f"{kind} {name}".encode()


def _cipher(passphrase: bytes, salt: bytes) -> AESGCM:
    return AESGCM(Scrypt(salt, KEY_BYTES, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(passphrase))
