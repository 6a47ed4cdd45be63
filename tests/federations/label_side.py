"""A label party's sending side in the hands of a test: it may break every rule, with or without the right keys."""

import dataclasses
import hashlib
import secrets
from typing import Any

import httpx
import msgspec
from identities import identity_of, signed_by, tls_of

from parties.trust.identity import Domain
from parties.wire.control import Proposal, commitment_to, encode_control, job_id
from parties.wire.envelopes import Envelope, Outgoing
from vfl.kinds import read_spec_as
from vfl.planning.training import resolve
from vfl.spec.training import TrainingSpec


class Label:
    def __init__(self, url: str, spec: str, sender: str = "label-party", receiver: str = "feature-party") -> None:
        """It calls with the label party's certificate, whatever name and key it signs with."""
        self._url = f"{url}/peer/v1/envelopes"
        self._spec = resolve(read_spec_as(TrainingSpec, spec))
        self._commitment = commitment_to(secrets.token_bytes(32))
        self.job = job_id(self._spec.digest(), self._commitment)
        self._sender, self._receiver = sender, receiver
        self._tls = tls_of("label-party", "feature-party")
        self.lane = self.new_lane(0)

    def new_lane(self, attempt: int) -> Outgoing:
        return Outgoing(self.job, self._spec.digest(), attempt, identity_of(self._sender), self._receiver)

    def proposal(self, commitment: bytes | None = None) -> Envelope:
        signed = signed_by(self._sender, self.job, self._spec.digest())
        proposal = Proposal(self._spec.encoded(), commitment or self._commitment, signed)
        return self.seal("Proposal", encode_control(proposal))

    def seal(self, kind: str, body: bytes = b"") -> Envelope:
        return self.lane.seal(kind, body)[0]

    def post(self, *envelopes: Envelope) -> httpx.Response:
        return self.post_bytes(b"".join(piece for envelope in envelopes for piece in envelope.pieces()))

    def post_bytes(self, post: Any) -> httpx.Response:
        return httpx.post(self._url, content=post, timeout=20.0, verify=self._tls, trust_env=False)


def changed(envelope: Envelope, **fields: Any) -> Envelope:
    """The same envelope with other words in its header, signed by its sender."""
    header = msgspec.structs.replace(envelope.header, **fields)
    encoded = msgspec.msgpack.encode(header)
    return signed(dataclasses.replace(envelope, header=header, encoded=encoded, digest=sha256(encoded)))


def signed(envelope: Envelope) -> Envelope:
    signature = identity_of(envelope.header.sender).sign(Domain.ENVELOPE, bytes(envelope.encoded))
    return dataclasses.replace(envelope, signature=signature)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
