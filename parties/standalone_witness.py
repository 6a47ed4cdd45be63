"""A witness that is no party: an auditor's program, with a key of its own and a file of the heads that it has cosigned.

It is told which logs it answers for by their verifier keys, and never sees a leaf (c2sp.org/tlog-witness).
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, field_validator, model_validator

from parties.errors import SettingsError
from parties.private_files import write_private
from parties.server_settings import LOOPBACK, SettingsTable, own_address
from parties.settings import PASSPHRASE_FILE, save_identity
from parties.storage.engine import Database
from parties.trust.errors import MalformedNote
from parties.trust.identity import Identity
from parties.trust.key_file import KEY_FILE, KeyFolder
from parties.trust.notes import Checkpoint, Note, SignatureType, VerifierKey
from parties.trust.witness import AddCheckpoint
from parties.witness import Witness

SETTINGS_FILE, DATABASE_FILE, CA_FILE = "witness.toml", "witness.db", "witness.ca.pem"
WITNESS_PORT = 7103
LONGEST_NAME = 64
"""Of a certificate's common name (RFC 5280, appendix A.1)."""


class StandaloneSettings(SettingsTable):
    """witness.toml."""

    name: str
    """Under which it signs."""
    host: str = LOOPBACK
    port: int = Field(default=WITNESS_PORT, ge=1, le=65535)
    certificate: str = ""
    """A chain in PEM, relative to the folder; empty = the witness's own key issues one."""
    key: str = ""
    """The private key of `certificate`, in PEM."""
    logs: tuple[str, ...] = ()
    """The verifier keys of the logs that it cosigns; those of one name are of one log, whose key was rotated."""

    @field_validator("host")
    @classmethod
    def _ip_address(cls, host: str) -> str:
        return own_address(host)

    @field_validator("logs")
    @classmethod
    def _are_logs(cls, logs: tuple[str, ...]) -> tuple[str, ...]:
        try:
            keys = list(map(VerifierKey.parse, logs))
        except MalformedNote as error:
            raise ValueError(str(error)) from None
        if any(key.type is not SignatureType.ED25519 for key in keys):
            raise ValueError("must be keys of logs, as `vfl audit show` prints them")
        return logs

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("name both certificate and key, or neither")
        return self


class StandaloneWitness:
    """Safe for several threads. Raises StorageFailed."""

    def __init__(self, folder: Path, settings: StandaloneSettings, identity: Identity) -> None:
        self._database = Database(folder, file=DATABASE_FILE)
        self._witness = Witness(verifier_key(identity), identity.cosigning.sign, self._database)
        self._logs = list(map(VerifierKey.parse, settings.logs))

    def cosign(self, encoded: bytes) -> str:
        """The answer to a request. Raises as `Witness.cosign`."""
        request = AddCheckpoint.parse(encoded)
        origin = Checkpoint.parse(request.checkpoint.text).origin
        return self._witness.cosign([key for key in self._logs if key.name == origin], request)

    def heads(self) -> Sequence[Note]:
        """Of each log the newest that it has cosigned."""
        return self._witness.heads()

    def close(self) -> None:
        self._database.close()


def verifier_key(identity: Identity) -> VerifierKey:
    """Of a witness, as parties name it in party.toml."""
    return VerifierKey(identity.name, SignatureType.COSIGNATURE, identity.cosigning.public_key().public_bytes_raw())


def init_witness(folder: Path, name: str) -> Identity:
    """Make the folder of a witness (0700), its key and its settings. Raises SettingsError."""
    path = folder / SETTINGS_FILE
    try:
        VerifierKey.parse(str(VerifierKey(name, SignatureType.COSIGNATURE, Identity.generate(name).key.raw)))
    except MalformedNote:
        raise _no_name(name) from None
    if len(name) > LONGEST_NAME:
        raise _no_name(name)
    if path.exists() or (folder / KEY_FILE).exists():
        raise SettingsError(f"{path} exists already", fix="Choose another folder; a witness is not overwritten.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise SettingsError(f"the folder {folder} cannot be made: {error.strerror}", fix="Name another.") from error
    identity = Identity.generate(name)
    save_identity(folder, identity)
    write_private(path, _TEMPLATE.format(name=name, port=WITNESS_PORT).encode())
    return identity


def load_witness(folder: Path) -> tuple[StandaloneSettings, Identity]:
    """Raises SettingsError."""
    path = folder / SETTINGS_FILE
    try:
        settings = StandaloneSettings(**tomllib.loads(path.read_text("utf-8-sig")))
    except FileNotFoundError:
        fix = f"Run `vfl witness init {folder} --name NAME`."
        raise SettingsError(f"there is no {SETTINGS_FILE} in {folder}", fix=fix) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{path}: {at}: {first['msg'].removeprefix('Value error, ')}") from error
    identity = KeyFolder(folder, folder / PASSPHRASE_FILE).identity()
    if identity.name != settings.name:
        raise SettingsError(f"{folder / KEY_FILE} is the key of {identity.name}, and this witness is {settings.name}")
    return settings, identity


def _no_name(name: str) -> SettingsError:
    return SettingsError(
        f"{name!r:.80} is no name of a witness",
        fix=f"Use at most {LONGEST_NAME} letters without spaces and plus signs, such as auditor.example.org.",
    )


_TEMPLATE = """\
name = "{name}"
host = "127.0.0.1"   # the address of this machine on which parties reach the witness; 0.0.0.0 for every one
port = {port}
logs = []            # the keys of the logs that it cosigns, as `vfl audit show` prints them;
                     # when a party has rotated its key, add the new one and keep the old one

# A certificate of your own, in PEM; without it the witness's key issues one, and parties need witness.ca.pem.
# certificate = "witness.pem"
# key = "witness.pem.key"
"""
