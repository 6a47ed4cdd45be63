"""One party's settings: VFL_* in the environment, over party.toml in its folder, over defaults."""

import difflib
import hashlib
import os
import re
import secrets
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from parties.errors import SettingsError
from vfl.terms import PARTY_ID, PartyId

LOOPBACK = "127.0.0.1"
TOKEN_FILE, TOKEN_HASH_FILE, SETTINGS_FILE = "operator.token", "operator.token.sha256", "party.toml"


class Table(BaseModel):
    """A table of party.toml; unknown keys are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Table):
    host: str = LOOPBACK
    operator_port: int = Field(default=7101, ge=1, le=65535)
    peer_port: int = Field(default=7102, ge=1, le=65535)
    peer_timeout_seconds: float = Field(default=30.0, gt=0)
    """How long a peer may be out of reach while a job runs."""
    jobs_per_peer: int = Field(default=16, ge=1)
    """Jobs one peer may have open here at once: each holds a table, and a worker while it runs."""

    @field_validator("host")
    @classmethod
    def _loopback_only(cls, host: str) -> str:
        # Envelopes are not signed yet, so nothing but this machine may reach either port.
        if host != LOOPBACK:
            raise ValueError(f"only {LOOPBACK} is possible until parties have identities")
        return host


class PeerSettings(Table):
    url: str

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        if re.fullmatch(r"https?://[^/\s]+/?", url) is None:
            raise ValueError("must look like http://127.0.0.1:7202")
        return url.rstrip("/")


class DatasetSettings(Table):
    path: str
    id: str


class BottomSettings(Table):
    """This party's own module for layout `embeddings`; no peer names or sees it."""

    module: str
    """`FILE.py:FUNCTION`, the file relative to the folder; FUNCTION(columns, width) returns a torch module."""

    @field_validator("module")
    @classmethod
    def _file_and_function(cls, module: str) -> str:
        if re.fullmatch(r"[^:]+\.py:[A-Za-z_]\w*", module) is None:
            raise ValueError("must look like bottom.py:build")
        return module


class Acceptance(Table):
    """What this party agrees to without asking; the defaults are the policy floor of trust.md 8."""

    peers: tuple[PartyId, ...] = ()
    datasets: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """Columns that a job may bring in as inputs; empty = every column of the data sets above, labels included."""
    schemes: tuple[str, ...] = ("ckks",)
    """What may leave this party: ciphertexts, training in clear (`none`), trained parameters (`updates`), sums of
    them (`sums`)."""
    handed_out: tuple[str, ...] = ()
    """Data sets whose rows themselves may be handed to every peer of a job."""
    fixed_seed: bool = False
    minimum_rows: int = Field(default=1000, ge=2)
    minimum_batch_rows: int = Field(default=0, ge=0)
    maximum_rho: float = Field(default=0.05, ge=0)
    private_seed: str = Field(default="", repr=False)


class PartySettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="VFL_", env_nested_delimiter="__", extra="forbid", frozen=True)

    name: PartyId
    server: ServerSettings = ServerSettings()
    peers: dict[PartyId, PeerSettings] = {}
    datasets: dict[str, DatasetSettings] = {}
    bottom: BottomSettings | None = None
    acceptance: Acceptance = Acceptance()

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
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsError(
            f"there is no {SETTINGS_FILE} in {folder}", fix=f"Run `vfl party init {folder} --name NAME`."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    try:
        settings = PartySettings(**document)
    except ValidationError as error:
        raise _readable(path, error) from error
    if settings.server.operator_port == settings.server.peer_port:
        raise SettingsError(f"{path}: server.operator_port and server.peer_port are the same")
    if settings.name in settings.peers:
        raise SettingsError(f"{path}: [peers.{settings.name}] is this party itself")
    return settings


def init_party(folder: Path, name: str, *, operator_port: int = 7101, peer_port: int = 7102) -> Path:
    """Make a party's folder (0700) with party.toml and the operator's token (256 bit, 0600); answers party.toml's path.

    The server keeps only the token's hash, in a file of its own. Raises SettingsError when a party is already there, or
    the folder cannot be made.
    """
    if PARTY_ID.fullmatch(name) is None:
        raise SettingsError(f"{name!r} is not a party name", fix="Use lower-case letters, digits and hyphens.")
    path = folder / SETTINGS_FILE
    if path.exists():
        raise SettingsError(
            f"{path} exists already", fix="Choose another folder; an existing party is not overwritten."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise SettingsError(
            f"the folder {folder} cannot be made: {error.strerror}", fix="Name another folder."
        ) from error
    token = secrets.token_urlsafe(32)
    write_private(folder / TOKEN_FILE, f"{token}\n".encode())
    write_private(folder / TOKEN_HASH_FILE, f"{hashlib.sha256(token.encode()).hexdigest()}\n".encode())
    write_private(path, _TEMPLATE.format(name=name, operator_port=operator_port, peer_port=peer_port).encode())
    return path


def token_hash(folder: Path) -> bytes:
    """SHA-256 of the operator's token, 32 bytes. Raises SettingsError when `vfl party init` never ran here."""
    try:
        return bytes.fromhex((folder / TOKEN_HASH_FILE).read_text().strip())
    except (FileNotFoundError, ValueError) as error:
        raise SettingsError(
            f"{folder / TOKEN_HASH_FILE} is missing or damaged",
            fix="Make a new folder with `vfl party init`; it writes the operator's token.",
        ) from error


def write_private(path: Path, data: bytes) -> None:
    """Write a file only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _readable(path: Path, error: ValidationError) -> SettingsError:
    first: Any = error.errors()[0]
    at = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return SettingsError(f"{path}: {at}: {first['msg'].removeprefix('Value error, ')}")
    known = sorted(
        {
            key
            for table in (PartySettings, ServerSettings, PeerSettings, DatasetSettings, BottomSettings, Acceptance)
            for key in table.model_fields
        }
    )
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
    return SettingsError(f"{path}: unknown key `{at}`", fix=f"Did you mean `{near[0]}`?" if near else "")


_TEMPLATE = """\
name = "{name}"

[server]
operator_port = {operator_port}   # this organisation's people and pipelines
peer_port = {peer_port}       # other parties

# [peers.feature-party]
# url = "http://127.0.0.1:7202"

# [datasets.patients]
# path = "patients.csv"    # CSV or Parquet, relative to this folder
# id = "id"

[acceptance]               # what this party agrees to without asking; anything else is refused, naming the rule
peers = []
datasets = []
columns = []                # inputs a job may ask for; empty = every column, labels included
schemes = ["ckks"]         # "none", "updates" and "sums" must be allowed by name
handed_out = []            # data sets whose rows may go to every peer of a job
fixed_seed = false
minimum_rows = 1000
minimum_batch_rows = 0     # 0 = what the number of opened values asks for
maximum_rho = 0.05
private_seed = ""          # empty = drawn for each job
"""
