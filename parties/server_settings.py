"""The tables of party.toml about the server: its ports, who reaches them, its database, and who cosigns its log."""

import ipaddress
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, field_validator, model_validator

from parties.trust.errors import MalformedNote
from parties.trust.invitation import is_address
from parties.trust.notes import SignatureType, VerifierKey

LOOPBACK = "127.0.0.1"
OPERATOR_PORT, PEER_PORT = 7101, 7102
HTTPS_PORT = 443


class SettingsTable(BaseModel):
    """A table of party.toml; unknown keys are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerTlsSettings(SettingsTable):
    """What the peer port shows instead of a certificate that the identity key issues."""

    certificate: str
    """The organisation's own, as a chain in PEM, relative to the folder."""
    key: str
    """The private key of `certificate`, in PEM."""


class ServerSettings(SettingsTable):
    operator_port: int = Field(default=OPERATOR_PORT, ge=1, le=65535)
    """For this organisation's people and pipelines, with a token; on this machine alone unless [operator] says more."""
    peer_port: int = Field(default=PEER_PORT, ge=1, le=65535)
    peer_host: str = LOOPBACK
    """The address of this machine on which peers may reach the peer port; 0.0.0.0 or [::] for every one."""
    address: str = ""
    """HOST:PORT as peers reach the peer port, told in invitations; empty = peer_host and peer_port."""
    peer_timeout_seconds: float = Field(default=30.0, gt=0)
    """How long a peer may be out of reach while a job runs."""
    jobs_per_peer: int = Field(default=16, ge=1)
    """Jobs one peer may have open here at once: each holds a table, and a worker while it runs."""
    tls: ServerTlsSettings | None = None

    @field_validator("peer_host")
    @classmethod
    def _ip_address(cls, host: str) -> str:
        return own_address(host)

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, address: str) -> str:
        if address and not is_address(address):
            raise ValueError("must look like vfl.example.org:7102 or [2001:db8::7]:7102")
        return address

    @property
    def told_address(self) -> str:
        """HOST:PORT for invitations."""
        return self.address or f"{in_url(self.peer_host)}:{self.peer_port}"


class OperatorSettings(SettingsTable):
    """Who beside this machine reaches the operator port: nobody, or over TLS those networks that are named."""

    host: str = LOOPBACK
    """The address of this machine on which the operator port answers; 0.0.0.0 or [::] for every one."""
    allow: tuple[IPvAnyNetwork, ...] = ()
    """From where it may be called, beside this machine."""
    certificate: str = ""
    """A chain in PEM, relative to the folder; empty = the identity key issues one."""
    key: str = ""
    """The private key of `certificate`, in PEM."""

    @field_validator("host")
    @classmethod
    def _ip_address(cls, host: str) -> str:
        return own_address(host)

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("name both certificate and key, or neither")
        if self.is_local and (self.allow or self.certificate):
            raise ValueError(f"allow and certificate have no effect while host is {self.host}; name another host")
        if not self.is_local and not self.allow:
            raise ValueError(
                f"on {self.host} other machines reach the operator port, so allow must name the networks from which "
                f'they may call, such as allow = ["10.20.0.0/16"]; without host it answers on {LOOPBACK} alone'
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine can call, in clear."""
        return ipaddress.ip_address(self.host).is_loopback

    def admits(self, caller: str, called: str) -> bool:
        """Whether a connection from one address to another begins at this machine, or in a network of `allow`."""
        address = ipaddress.ip_address(caller)
        address = getattr(address, "ipv4_mapped", None) or address
        return self.is_local or caller == called or any(address in network for network in self.allow)

    def url(self, port: int) -> str:
        """Where this machine itself calls it."""
        host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.host, self.host)  # noqa: S104 - every address, told from one
        return f"{'http' if self.is_local else 'https'}://{in_url(host)}:{port}"


class StorageSettings(SettingsTable):
    url: str = Field(default="", repr=False)
    """postgresql://USER@HOST/DATABASE in place of party.db, the file in the folder."""

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in {"postgresql", "postgres"} or not (parts.path.strip("/") or parts.query)):
            raise ValueError("must look like postgresql://user@host/database; without it the database is party.db")
        return url


class WitnessSettings(SettingsTable):
    """Somebody who cosigns the heads of this party's audit log, and is no peer."""

    url: str
    """Requests go to URL/add-checkpoint (c2sp.org/tlog-witness)."""
    key: str
    """Its verifier key (c2sp.org/signed-note), which also names it."""
    ca: str = ""
    """The certificate that vouches for its server, in PEM, relative to the folder; empty = those the system knows."""

    @field_validator("url")
    @classmethod
    def _https(cls, url: str) -> str:
        parts = urlsplit(url)
        is_plain = not (parts.query or parts.fragment or parts.username)
        if parts.scheme != "https" or not is_plain or not is_address(_host_and_port(url)):
            raise ValueError("must look like https://witness.example.org or https://192.0.2.7:7103/logs")
        return url.rstrip("/")

    @field_validator("key")
    @classmethod
    def _cosigns(cls, key: str) -> str:
        try:
            is_cosigner = VerifierKey.parse(key).type is SignatureType.COSIGNATURE
        except MalformedNote:
            is_cosigner = False
        if not is_cosigner:
            raise ValueError("must be the verifier key of a witness, as `vfl witness init` prints it")
        return key

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey.parse(self.key)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return _host_and_port(self.url)

    @property
    def route(self) -> str:
        return f"{urlsplit(self.url).path}/add-checkpoint"


class AuditSettings(SettingsTable):
    witness: tuple[WitnessSettings, ...] = ()

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        if len({each.verifier.name for each in self.witness}) < len(self.witness):
            raise ValueError("two witnesses have one name")
        return self


def _host_and_port(url: str) -> str:
    parts = urlsplit(url)
    try:
        return f"{in_url(parts.hostname or '')}:{parts.port or HTTPS_PORT}"
    except ValueError:  # a port that is none
        return ""


def own_address(host: str) -> str:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError("must be an address of this machine such as 0.0.0.0, 192.0.2.7 or [::]") from None
    return host.strip("[]")


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class PoolSettings(SettingsTable):
    """Where the workers of this party do heavy work."""

    kind: Literal["processes", "dask"] = "processes"
    processes: int = Field(default=0, ge=0, le=1024)
    """How many of this machine share the work of one worker; 0 = as many as there are cores."""
    scheduler: str = ""
    """Of an existing Dask cluster: tls://HOST:PORT."""
    ca: str = ""
    """The certificate authority of the cluster, in PEM, relative to the folder."""
    certificate: str = ""
    """What the cluster knows this party by, in PEM."""
    key: str = ""
    """The private key of `certificate`, in PEM."""

    @model_validator(mode="after")
    def _cluster_is_named_whole(self) -> Self:
        named = [bool(value) for value in (self.scheduler, self.ca, self.certificate, self.key)]
        if self.kind == "dask" and not all(named):
            raise ValueError('kind = "dask" needs scheduler, ca, certificate and key')
        if self.kind != "dask" and any(named):
            raise ValueError('scheduler, ca, certificate and key have no effect without kind = "dask"')
        if self.kind == "dask" and not self.scheduler.startswith("tls://"):
            raise ValueError("scheduler must look like tls://dask.example.org:8786: work does not travel in clear")
        return self
