"""A party's private key on disk: encrypted with a passphrase that is kept in a file of its own.

The passphrase file may lie anywhere: a systemd credential, a Docker secret, a mounted share. Where it lies beside the
key, as `vfl party init` leaves it, it protects copies of the key file alone, and not the folder (docs/trust.md).
"""

import secrets
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from parties.errors import SettingsError
from parties.trust.identity import KEY_BYTES, Identity

SALT_BYTES, NONCE_BYTES = 16, 12
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 15, 8, 1
"""32 MiB and about a tenth of a second for each guess of a passphrase."""


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    name: str
    salt: bytes
    nonce: bytes
    ciphertext: bytes


_FORMAT = "vfl-identity-1"


def encrypted(identity: Identity, passphrase: bytes) -> bytes:
    """The content of a key file: scrypt, then AES-256-GCM over the 32 bytes of the private key, bound to the name."""
    salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
    ciphertext = _cipher(passphrase, salt).encrypt(nonce, identity.private.private_bytes_raw(), identity.name.encode())
    return msgspec.json.encode(_KeyFile(_FORMAT, identity.name, salt, nonce, ciphertext)) + b"\n"


def read_identity(path: Path, passphrase_path: Path) -> Identity:
    """Raises SettingsError where a file is missing, damaged, or of another passphrase."""
    if not path.exists():
        raise SettingsError(
            f"{path} is missing: without its key this party cannot prove to its peers who it is",
            fix="Put the key file back from your backup. If there is none, make a new party with `vfl party init` and "
            "enrol it with every peer again: to them it is a stranger.",
        )
    try:
        passphrase = passphrase_path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(
            f"the passphrase of this party's key cannot be read from {passphrase_path}: {error.strerror}",
            fix="Name its file in party.toml as [identity] passphrase_file, or in VFL_IDENTITY__PASSPHRASE_FILE.",
        ) from error
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_KeyFile)
        cipher = _cipher(passphrase, stored.salt)
        raw = cipher.decrypt(stored.nonce, stored.ciphertext, stored.name.encode())
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise SettingsError(f"{path} is damaged: {error}", fix="Put it back from your backup.") from error
    except InvalidTag as error:
        raise SettingsError(
            f"{path} does not open with the passphrase in {passphrase_path}",
            fix="Put back the passphrase file that was made with this key.",
        ) from error
    return Identity(stored.name, Ed25519PrivateKey.from_private_bytes(raw))


def _cipher(passphrase: bytes, salt: bytes) -> AESGCM:
    return AESGCM(Scrypt(salt, KEY_BYTES, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(passphrase))
