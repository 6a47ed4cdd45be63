"""One party's settings: VFL_* in the environment, over party.toml in its folder, over defaults."""

import contextlib
import difflib
import hashlib
import re
import secrets
import socket
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from parties.environment import PREFIX, check_environment
from parties.errors import SettingsError, StorageFailed
from parties.private_files import write_private
from parties.server_settings import (
    LOOPBACK,
    OPERATOR_PORT,
    PEER_PORT,
    AuditSettings,
    OperatorSettings,
    PoolSettings,
    ServerSettings,
    ServerTlsSettings,
    SettingsTable,
    StorageSettings,
    WitnessSettings,
)
from parties.trust.id_runs import RunLimits
from parties.trust.identity import Identity
from parties.trust.invitation import check_address
from parties.trust.key_file import KEY_FILE, KeyFolder
from vfl.spec.sections import PARTY_ID, PartyId

PAIRS_OF_PORTS = 100
"""How many pairs a new party tries, one hundred apart: 7101 and 7102, 7201 and 7202, ..."""
ONCE = "Each table stands once in the file: write the keys of both under one heading."
TOKEN_FILE, TOKEN_HASH_FILE, SETTINGS_FILE = "operator.token", "operator.token.sha256", "party.toml"
PASSPHRASE_FILE = "identity.passphrase"  # noqa: S105 - its name, and no passphrase


class IdentitySettings(SettingsTable):
    passphrase_file: str = PASSPHRASE_FILE
    """Opens identity.key; relative to the folder, or anywhere else."""


class BottomSettings(SettingsTable):
    """This party's own module for layout `embeddings`; no peer names or sees it."""

    module: str
    """`FILE.py:FUNCTION`, the file relative to the folder; FUNCTION(columns, width) returns a torch module."""

    @field_validator("module")
    @classmethod
    def _file_and_function(cls, module: str) -> str:
        if re.fullmatch(r"[^:]+\.py:[A-Za-z_]\w*", module) is None:
            raise ValueError("must look like bottom.py:build")
        return module


class Acceptance(SettingsTable):
    """What this party agrees to without asking; the defaults are the limits of party_settings.md."""

    peers: tuple[PartyId, ...] = ()
    datasets: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """Columns that a job may bring in as inputs; empty = every column of the data sets above, labels included."""
    schemes: tuple[str, ...] = ("ckks",)
    """What may leave this party: ciphertexts, training in clear (`none`), trained parameters (`updates`), sums of
    them (`sums`), scores of new rows (`scores`)."""
    handed_out: tuple[str, ...] = ()
    """Data sets whose rows themselves may be handed to every peer of a job."""
    fixed_seed: bool = False
    minimum_rows: int = Field(default=1000, ge=2)
    minimum_batch_rows: int = Field(default=0, ge=0)
    maximum_rho: float = Field(default=0.05, ge=0)
    alignments_per_day: int = Field(default=3, ge=1)
    """With one peer and one data set."""
    minimum_changed_ids: int = Field(default=50, ge=0)
    """The ids of an alignment are those of every earlier one with the same peer and data set, or differ in so many."""
    predictions_per_day: int = Field(default=10, ge=1)
    """With one peer and one data set: how often a peer may read a score of the same row."""
    maximum_model_bytes: int = Field(default=64 << 20, ge=1)
    """Of this party's part of a job's model, whose layers a peer may have chosen; it is kept in memory and on disk."""
    private_seed: str = Field(default="", repr=False)

    @property
    def run_limits(self) -> RunLimits:
        return RunLimits(self.alignments_per_day, self.minimum_changed_ids)


TABLES = (
    ServerSettings,
    ServerTlsSettings,
    OperatorSettings,
    StorageSettings,
    AuditSettings,
    WitnessSettings,
    IdentitySettings,
    BottomSettings,
    PoolSettings,
    Acceptance,
)


class PartySettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    name: PartyId
    server: ServerSettings = ServerSettings()
    operator: OperatorSettings = OperatorSettings()
    storage: StorageSettings = StorageSettings()
    audit: AuditSettings = AuditSettings()
    identity: IdentitySettings = IdentitySettings()
    bottom: BottomSettings | None = None
    pool: PoolSettings = PoolSettings()
    acceptance: Acceptance = Acceptance()

    @property
    def operator_url(self) -> str:
        """Where this machine itself calls the operator port."""
        return self.operator.url(self.server.operator_port)

    @field_validator("name")
    @classmethod
    def _party_name(cls, name: str) -> str:
        if PARTY_ID.fullmatch(name) is None:
            raise ValueError("must be lower-case letters, digits and hyphens")
        return name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings gives it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The file is read by `load`, which hands it in as initial values below the environment."""
        del dotenv_settings, file_secret_settings
        return env_settings, init_settings


def load(folder: Path) -> PartySettings:
    """The settings of the party in this folder. Raises SettingsError, naming the key and the nearest known one."""
    path = folder / SETTINGS_FILE
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(
            f"there is no {SETTINGS_FILE} in {folder}", fix=f"Run `vfl party init {folder} --name NAME`."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}", fix=ONCE if "declare" in str(error) else "") from error
    except RecursionError as error:
        raise SettingsError(
            f"{path} nests too deeply", fix="party.toml needs two levels of tables and lists."
        ) from error
    check_environment(PartySettings)
    try:
        settings = PartySettings(**document)
    except ValidationError as error:
        raise _readable(path, error) from error
    if settings.server.operator_port == settings.server.peer_port:
        raise SettingsError(f"{path}: server.operator_port and server.peer_port are the same")
    return settings


def init_party(
    folder: Path, name: str, *, operator_port: int | None = None, peer_port: int | None = None, address: str = ""
) -> Path:
    """Make a party's folder (0700) with party.toml, its identity and the operator's token; answers party.toml's path.

    With an `address` (HOST:PORT) peers on other machines may reach the peer port there; without one, only this machine.
    A peer port that is not named is that of the address; ports that nothing names are the first pair that no party
    beside this folder has and no process uses. The server keeps only the token's hash, in a file of its own. Raises
    SettingsError when a party is already there, the folder cannot be made or both ports are one, StorageFailed when the
    files cannot be written.
    """
    if address:
        check_address(address)
        peer_port = peer_port or int(address.rpartition(":")[2])
    free = default_ports(folder.absolute().parent) if operator_port is None or peer_port is None else (0, 0)
    operator_port, peer_port = operator_port or free[0], peer_port or free[1]
    if operator_port == peer_port:
        raise SettingsError(f"both ports of {name} would be {peer_port}", fix="Name another one.")
    if PARTY_ID.fullmatch(name) is None:
        raise SettingsError(f"{name!r} is not a party name", fix="Use lower-case letters, digits and hyphens.")
    path = folder / SETTINGS_FILE
    if path.exists() or (folder / KEY_FILE).exists():
        raise SettingsError(
            f"{path if path.exists() else folder / KEY_FILE} exists already",
            fix="Choose another folder; an existing party is not overwritten.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise SettingsError(
            f"the folder {folder} cannot be made: {error.strerror}", fix="Name another folder."
        ) from error
    reachable = (
        f'peer_host = "0.0.0.0"       # every address of this machine\naddress = "{address}"\n' if address else ""
    )
    text = _TEMPLATE.format(name=name, operator_port=operator_port, peer_port=peer_port, reachable=reachable)
    try:
        new_token(folder)
        save_identity(folder, Identity.generate(name))
        write_private(path, text.encode())
    except (OSError, StorageFailed) as error:
        for half_made in (TOKEN_FILE, TOKEN_HASH_FILE, KEY_FILE, PASSPHRASE_FILE):
            (folder / half_made).unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageFailed(
            f"the files of a new party cannot be written to {folder}: {reason}",
            safe="No party was made.",
            fix="Free space there, or name another folder.",
        ) from error
    return path


def new_token(folder: Path) -> None:
    """Of the operator; a former one opens nothing any more once the server starts again."""
    token = secrets.token_urlsafe(32)
    write_private(folder / TOKEN_FILE, f"{token}\n".encode())
    write_private(folder / TOKEN_HASH_FILE, f"{hashlib.sha256(token.encode()).hexdigest()}\n".encode())


def save_identity(folder: Path, identity: Identity) -> None:
    """Its private key, encrypted with a new passphrase, which is written beside it (both 0600)."""
    passphrase = secrets.token_urlsafe(32).encode()
    write_private(folder / PASSPHRASE_FILE, passphrase + b"\n")
    KeyFolder(folder, folder / PASSPHRASE_FILE).save(identity)


def key_folder(folder: Path, settings: "PartySettings") -> KeyFolder:
    return KeyFolder(folder, folder / settings.identity.passphrase_file)


def load_identity(folder: Path, settings: "PartySettings") -> Identity:
    """Raises SettingsError where it is missing, damaged, or of another party."""
    identity = key_folder(folder, settings).identity()
    if identity.name != settings.name:
        raise SettingsError(
            f"{folder / KEY_FILE} is the key of {identity.name}, and this party is {settings.name}",
            fix="Put this party's own key back; a party keeps its name, because its peers know it by name and key.",
        )
    return identity


def default_ports(parent: Path) -> tuple[int, int]:
    """(operator, peer). Raises SettingsError when no pair is free."""
    taken = set()
    for path in parent.glob(f"*/{SETTINGS_FILE}"):
        with contextlib.suppress(OSError, ValueError):
            server = ServerSettings(**tomllib.loads(path.read_text(encoding="utf-8-sig")).get("server", {}))
            taken |= {server.operator_port, server.peer_port}
    for number in range(PAIRS_OF_PORTS):
        pair = (OPERATOR_PORT + 100 * number, PEER_PORT + 100 * number)
        if taken.isdisjoint(pair) and not any(map(_in_use, pair)):
            return pair
    raise SettingsError("no pair of ports is free here", fix="Name two with --operator-port and --peer-port.")


def _in_use(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def token_hash(folder: Path) -> bytes:
    """SHA-256 of the operator's token, 32 bytes. Raises SettingsError when `vfl party init` never ran here."""
    try:
        return bytes.fromhex((folder / TOKEN_HASH_FILE).read_text().strip())
    except (FileNotFoundError, ValueError) as error:
        raise SettingsError(
            f"{folder / TOKEN_HASH_FILE} is missing or damaged",
            fix="Make a new folder with `vfl party init`; it writes the operator's token.",
        ) from error


def _readable(path: Path, error: ValidationError) -> SettingsError:
    first: Any = error.errors()[0]
    at = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return SettingsError(f"{path}: {at}: {first['msg'].removeprefix('Value error, ')}")
    keys = sorted({key for table in (PartySettings, *TABLES) for key in table.model_fields})
    if first["loc"][0] == "peers":
        return SettingsError(
            f"{path}: peers no longer stand in party.toml",
            fix="Remove [peers]; enrol each peer with `vfl peer invite` here and `vfl peer accept` at the other side.",
        )
    if first["loc"][0] == "datasets":
        return SettingsError(
            f"{path}: data sets no longer stand in party.toml",
            fix="Remove [datasets]; add each table with `vfl data add NAME PATH --id COLUMN` while the server runs.",
        )
    near = difflib.get_close_matches(str(first["loc"][-1]), keys, n=1)
    return SettingsError(f"{path}: unknown key `{at}`", fix=f"Did you mean `{near[0]}`?" if near else "")


_TEMPLATE = """\
name = "{name}"

[server]
operator_port = {operator_port}   # this organisation's people and pipelines
peer_port = {peer_port}       # other parties
{reachable}
# Below, at the end of this file, stands what this party agrees to, such as:
#
# [acceptance]               # without it every job is refused; what is not written keeps the value shown here
# peers = []
# datasets = []
# columns = []               # inputs a job may ask for; empty = every column, labels included
# schemes = ["ckks"]         # "paillier", "none", "updates", "sums", "common_ids", "common_size" and "scores"
#                            # must be allowed by name
# handed_out = []            # data sets whose rows may go to every peer of a job
# fixed_seed = false
# minimum_rows = 1000
# minimum_batch_rows = 0     # 0 = what the number of opened values asks for
# maximum_rho = 0.05
# alignments_per_day = 3
# minimum_changed_ids = 50
# predictions_per_day = 10
# maximum_model_bytes = 67108864  # of this party's part of a model; states of it are kept on disk
# private_seed = ""          # empty = drawn for each job
"""
