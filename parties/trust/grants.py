"""What the owner of data has agreed to in advance: a grant names the bytes, who may use them, for what and how much.

A grant is signed by the owner's identity key and enforced by the owner's own server. A job that no grant covers waits
for the operator (docs/grants.md). Every refusal names the rule, the number that was asked for and the limit.
"""

import base64
import math
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

from parties.trust.budget import ROUNDING
from parties.trust.errors import GrantInvalid
from parties.trust.identity import Domain, Identity, IdentityKey
from parties.trust.request import Request
from vfl.kinds import kind_of
from vfl.spec.sections import PARTY_ID, PartyId

DAY_SECONDS = 86_400
DEFAULT_DAYS, MOST_DAYS = 30, 366
ID_BYTES = 8
PURPOSE_LETTERS = 2000

Uses = int | Literal["standing"]
"""For how many jobs; `standing` is for any number until the grant expires."""


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Raises GrantInvalid when built from something that contradicts itself."""

    version: Literal[1] = 1
    id: str
    """Drawn at random: two grants on the same terms are two."""
    owner: PartyId
    peer: PartyId
    """Who may propose such a job: its coordinator."""
    others: tuple[PartyId, ...] = ()
    """Who may take part beside the owner and the peer. A job with anybody else is not covered."""
    other_keys: dict[PartyId, str] = {}
    """Base64 of the identity keys of those parties that the owner has not enrolled itself, if the job names any."""
    dataset: str
    dataset_digest: str
    """SHA-256 of the file, as hexadecimal digits: another version of it is not covered."""
    columns: tuple[str, ...] = ()
    """Which may enter as inputs."""
    label: str = ""
    """Which column may be used as the label; empty for none."""
    purpose: str = ""
    """Where it is given, the job must state the same."""
    protocol: str
    """The kind of job."""
    scheme: str
    """What may leave, in a word of `acceptance.schemes`."""
    maximum_epochs: int
    """Or rounds."""
    minimum_rows: int
    """Which the job must train on."""
    maximum_opened_values: int
    """What one job may reveal of this data set, in the numbers of its plan."""
    maximum_rho: float
    """Of one job."""
    created: int
    """Unix seconds, as `expires`."""
    expires: int
    uses: Uses = 1

    def __post_init__(self) -> None:
        _require(re.fullmatch(f"[0-9a-f]{{{2 * ID_BYTES}}}", self.id) is not None, "it has no id")
        for party in (self.owner, self.peer, *self.others):
            _require(PARTY_ID.fullmatch(party) is not None, f"{party!r} is not a party name")
        parties = (self.owner, self.peer, *self.others)
        _require(len(set(parties)) == len(parties), "it names a party twice, or its owner as a peer")
        _require(set(self.other_keys) <= set(parties), "it names the key of a party that may not take part")
        _require(bool(self.dataset), "it names no data set")
        _require(
            re.fullmatch("[0-9a-f]{64}", self.dataset_digest) is not None, "it does not name the bytes of the file"
        )
        _require(bool(self.columns or self.label), "it names neither columns nor a label")
        _require(len(set(self.columns)) == len(self.columns), "it names a column twice")
        _require(self.label not in self.columns, "its label is among its columns")
        _require(len(self.purpose) <= PURPOSE_LETTERS, f"its purpose has more than {PURPOSE_LETTERS} letters")
        _require(self.uses == "standing" or self.uses >= 1, "it must be good for one job at least, or standing")
        _require(min(self.maximum_epochs, self.minimum_rows, self.maximum_opened_values) >= 0, "a limit is negative")
        _require(0 <= self.maximum_rho < math.inf, "maximum_rho must be a finite number of at least 0")
        days = (self.expires - self.created) / DAY_SECONDS
        _require(0 < days <= MOST_DAYS, f"it would be good for {days:.3g} days; 0 to {MOST_DAYS} are possible")

    def encoded(self) -> bytes:
        """The canonical bytes: MessagePack of the frozen struct in declaration order."""
        return msgspec.msgpack.encode(self)

    def sign(self, owner: Identity) -> "SignedGrant":
        encoded = self.encoded()
        return SignedGrant(encoded, owner.sign(Domain.GRANT, encoded))


class SignedGrant(msgspec.Struct, frozen=True):
    """The bytes that were signed, and the owner's signature over them."""

    encoded: bytes
    signature: bytes

    def is_of(self, owner: IdentityKey) -> bool:
        """Whether the holder of this key has signed it."""
        return owner.verifies(Domain.GRANT, self.encoded, self.signature)

    def verified(self, owner: IdentityKey) -> Grant:
        """Raises GrantInvalid unless the owner signed these bytes and they are the canonical form of a grant."""
        if not self.is_of(owner):
            raise GrantInvalid("the grant is not signed by its owner")
        try:
            grant = msgspec.msgpack.decode(self.encoded, type=Grant)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise GrantInvalid(f"the grant cannot be read: {error}") from error
        _require(grant.encoded() == self.encoded, "it is not in canonical form")
        return grant


@dataclass(frozen=True)
class Refusal:
    """Why a grant does not cover a job."""

    rule: str
    """A field of the grant."""
    text: str


def grant_for(request: Request, dataset: str, *, days: int = DEFAULT_DAYS, uses: Uses = 1) -> Grant:
    """The narrowest grant that covers this data set of the job, and nothing beyond the job."""
    spec = request.spec
    use = next(use for use in request.data if use.dataset == dataset)
    return Grant(
        id=secrets.token_hex(ID_BYTES),
        owner=request.me,
        peer=spec.coordinator,
        others=tuple(sorted(set(spec.parties) - {spec.coordinator, request.me})),
        other_keys=_keys_of_others(request),
        dataset=dataset,
        dataset_digest=use.digest,
        columns=use.columns,
        label=use.label,
        purpose=spec.job.purpose,
        protocol=spec.job.protocol,
        scheme=spec.disclosure,
        maximum_epochs=spec.checkpoints,
        minimum_rows=request.plan.training_rows,
        maximum_opened_values=request.opened_values(use.digest),
        maximum_rho=request.rho,
        created=request.now,
        expires=request.now + days * DAY_SECONDS,
        uses=uses,
    )


def match(grant: Grant, request: Request, *, used: int = 0) -> Refusal | None:
    """None where the grant covers what the job takes of its data set, or the first rule that refuses.

    `used` is how many jobs it has approved already.
    """
    for rule, holds, text in _rules(grant, request, used):
        if not holds:
            return Refusal(rule, f"grant {grant.id} does not cover the job by its rule {rule}: {text}")
    return None


class Coverage(NamedTuple):
    """What grants make of a job."""

    grants: tuple[Grant, ...]
    """One for each data set that the job takes, where they cover it."""
    missing: str
    """Why they do not, in a sentence; empty where they do."""


def coverage(grants: Iterable[tuple[Grant, int]], request: Request) -> Coverage:
    """`grants` with how many jobs have used each. Where they do not cover all of a job, its operator decides."""
    usable, chosen = list(grants), []
    for use in request.data:
        about = [(grant, match(grant, request, used=used)) for grant, used in usable if grant.dataset == use.dataset]
        fitting = [grant for grant, refusal in about if refusal is None]
        if not fitting:
            # The newest of this peer is the one its operator had in mind.
            reasons = [refusal.text for grant, refusal in about if refusal and grant.peer == request.spec.coordinator]
            nothing = f"no grant lets {request.spec.coordinator} use the data set {use.dataset!r}"
            return Coverage((), reasons[-1] if reasons else nothing)
        chosen.append(fitting[0])
    return Coverage(tuple(chosen), "" if chosen else f"the job takes no data of {request.me}, so no grant can cover it")


def _rules(grant: Grant, request: Request, used: int) -> Iterator[tuple[str, bool, str]]:
    """Each rule, whether it holds, and what to say where it does not."""
    spec, plan, counted = request.spec, request.plan, request.counted
    yield "owner", grant.owner == request.me, f"the data is {request.me}'s, and the grant is {grant.owner}'s"
    yield (
        "expires",
        request.now < grant.expires,
        f"it is {_day(request.now)}, and it was good until {_day(grant.expires)}",
    )
    yield (
        "uses",
        grant.uses == "standing" or used < grant.uses,
        f"{used} jobs have used it, and {grant.uses} is the most",
    )
    yield "peer", spec.coordinator == grant.peer, f"{spec.coordinator} proposes the job, and only {grant.peer} may"
    strangers = sorted(set(spec.parties) - {grant.owner, grant.peer, *grant.others})
    yield "others", not strangers, f"{', '.join(strangers)} would take part, and {_listed(grant.others)} may"
    unknown = [party for party in request.strangers if grant.other_keys.get(party) != _keys_of_others(request)[party]]
    yield (
        "other_keys",
        not unknown,
        f"the job names identity keys of {', '.join(unknown)} that are neither pinned here nor named by the grant",
    )
    kind = spec.job.protocol
    yield "protocol", kind == grant.protocol, f"the job is of the kind {kind!r}, and only {grant.protocol!r} is allowed"
    scheme = spec.disclosure
    yield "scheme", scheme == grant.scheme, f"the scheme of the job is {scheme!r}, and only {grant.scheme!r} is allowed"
    purpose = spec.job.purpose
    yield (
        "purpose",
        grant.purpose in {"", purpose},
        f"the job states the purpose {purpose!r}, and only {grant.purpose!r} is allowed",
    )
    use = next((use for use in request.data if use.dataset == grant.dataset), None)
    if use is None:
        yield (
            "dataset",
            False,
            f"the job takes {_listed(one.dataset for one in request.data)}, and not {grant.dataset!r}",
        )
        return
    yield (
        "dataset_digest",
        use.digest == grant.dataset_digest,
        f"the file of {use.dataset!r} has the digest {use.digest[:12]}, and {grant.dataset_digest[:12]} was granted",
    )
    more = [column for column in use.columns if column not in grant.columns]
    yield "columns", not more, f"the job takes the columns {_listed(more)}, and {_listed(grant.columns)} may be used"
    label = f"{grant.label!r} may be used" if grant.label else "no label may be used"
    yield "label", use.label in {"", grant.label}, f"the job takes the label {use.label!r}, and {label}"
    yield "handed_out", not use.handed_out, "the job hands the rows themselves to its peers, which no grant covers"
    epochs, unit = spec.checkpoints, kind_of(spec).checkpoint
    most = grant.maximum_epochs
    yield "maximum_epochs", epochs <= most, f"the job takes {epochs} {unit}s, and {most} is the most"
    rows, least = plan.training_rows, grant.minimum_rows
    yield "minimum_rows", rows >= least, f"the job trains on {rows} rows, and {least} is the least"
    opened, most = request.opened_values(use.digest), grant.maximum_opened_values
    yield "maximum_opened_values", opened <= most, f"the job may reveal {opened} {counted}, and {most} is the most"
    rho, cap = request.rho, grant.maximum_rho
    yield "maximum_rho", rho <= cap + ROUNDING, f"rho of the job is {rho:.3g}, and {cap:.3g} is the most"


def _keys_of_others(request: Request) -> dict[PartyId, str]:
    """As the specification names them."""
    keys = request.spec.identity_keys
    others = sorted(set(keys) - {request.me, request.spec.coordinator})
    return {party: base64.b64encode(keys[party]).decode() for party in others}


def _listed(words: Iterable[str]) -> str:
    return ", ".join(map(repr, words)) or "none"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="minutes")


def _require(holds: bool, text: str) -> None:  # noqa: FBT001
    if not holds:
        raise GrantInvalid(f"the grant cannot be made or read: {text}")
