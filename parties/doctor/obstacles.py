"""What can stand between two parties, and what it means at whom. The same words serve the way there and the way back.

Parties tell each other the name of an obstacle and never a text of their own, so that nobody learns of the other's
network more than this page says.
"""

from enum import Enum
from typing import NamedTuple

from parties.doctor.findings import BETWEEN
from vfl.spec.sections import PartyId


class Step(Enum):
    """What a call to a party does, in this order."""

    NAME = "name"
    CONNECTION = "connection"
    HANDSHAKE = "TLS 1.3"
    KEY = "identity key"
    TRUST = "trust"
    PARTY = "a party answers"
    VERSION = "wire version"


class Obstacle(Enum):
    UNKNOWN_NAME = "unknown_name"
    NOTHING_LISTENS = "nothing_listens"
    NO_ROUTE = "no_route"
    SILENT_PORT = "silent_port"
    NOT_TLS = "not_tls"
    OLD_TLS = "old_tls"
    NO_HANDSHAKE = "no_handshake"
    FOREIGN_CERTIFICATE = "foreign_certificate"
    OTHER_KEY = "other_key"
    OVERDUE_CERTIFICATE = "overdue_certificate"
    NOT_TRUSTED = "not_trusted"
    CALLER_OVERDUE = "caller_overdue"
    NOT_A_PARTY = "not_a_party"
    OTHER_NAME = "other_name"
    TOO_SLOW = "too_slow"
    CUT = "cut"
    OTHER_VERSION = "other_version"


STEP = {
    Obstacle.UNKNOWN_NAME: Step.NAME,
    Obstacle.NOTHING_LISTENS: Step.CONNECTION,
    Obstacle.NO_ROUTE: Step.CONNECTION,
    Obstacle.SILENT_PORT: Step.CONNECTION,
    Obstacle.NOT_TLS: Step.HANDSHAKE,
    Obstacle.OLD_TLS: Step.HANDSHAKE,
    Obstacle.NO_HANDSHAKE: Step.HANDSHAKE,
    Obstacle.FOREIGN_CERTIFICATE: Step.KEY,
    Obstacle.OTHER_KEY: Step.KEY,
    Obstacle.OVERDUE_CERTIFICATE: Step.KEY,
    Obstacle.NOT_TRUSTED: Step.TRUST,
    Obstacle.CALLER_OVERDUE: Step.TRUST,
    Obstacle.NOT_A_PARTY: Step.PARTY,
    Obstacle.OTHER_NAME: Step.PARTY,
    Obstacle.TOO_SLOW: Step.PARTY,
    Obstacle.CUT: Step.PARTY,
    Obstacle.OTHER_VERSION: Step.VERSION,
}
"""The step that an obstacle ends."""


class Meaning(NamedTuple):
    side: str
    text: str
    fix: str


def meaning(
    obstacle: Obstacle, caller: PartyId, called: PartyId, address: str, right_address: str = "HOST:PORT"
) -> Meaning:
    """What it means that `caller` meets this obstacle when it calls `called` at `address`."""
    host = address.rpartition(":")[0]
    correct = f"At {caller}: `vfl peer address {called} {right_address}` names another address."
    meanings = {
        Obstacle.UNKNOWN_NAME: Meaning(
            caller,
            f"The name {host} is not known to the network (DNS).",
            f"Ask the operator of {called} for the right name. {correct}",
        ),
        Obstacle.NOTHING_LISTENS: Meaning(
            called,
            f"The machine answers, but nothing listens at {address}.",
            f"At {called}: start the server with `vfl party serve`, and compare server.peer_port and server.peer_host "
            f"in party.toml (127.0.0.1 is for one machine only). {correct}",
        ),
        Obstacle.NO_ROUTE: Meaning(
            caller,
            f"No way through the network leads to {address}.",
            f"At {caller}: check the network, and a VPN if there is one. {correct}",
        ),
        Obstacle.SILENT_PORT: Meaning(
            BETWEEN,
            f"No answer at all from {address}: a firewall drops what is sent there, or the machine is off.",
            f"Let {caller} reach that port in the firewalls of both sides. {correct}",
        ),
        Obstacle.NOT_TLS: Meaning(
            called,
            f"What answers at {address} does not speak TLS.",
            f"Another program has this port, or it is the operator port. Ask {called} for server.peer_port. {correct}",
        ),
        Obstacle.OLD_TLS: Meaning(
            called,
            f"What answers at {address} does not speak TLS 1.3.",
            f"It is no party's server, or a proxy in front of it. At {called}: let TLS pass to the peer port as it is.",
        ),
        Obstacle.NO_HANDSHAKE: Meaning(
            BETWEEN,
            f"Something at {address} takes the connection, but does not begin TLS.",
            f"At {called}: see whether the server hangs or is overloaded. Else a proxy or firewall cuts TLS.",
        ),
        Obstacle.FOREIGN_CERTIFICATE: Meaning(
            BETWEEN,
            f"A proxy ends TLS at {address}: its certificate is not a party's, and {called} has not signed it.",
            f"Let TLS between {caller} and {called} pass as it is: exempt this address from inspection.",
        ),
        Obstacle.OTHER_KEY: Meaning(
            called,
            f"Another party answers at {address}: its certificate is of another key than the one that is pinned.",
            f"If {called} has moved: {correct} If it has rotated its key, it says so itself once it reaches {caller}. "
            "If it has lost its key, remove it and enrol it again.",
        ),
        Obstacle.OVERDUE_CERTIFICATE: Meaning(
            BETWEEN,
            f"The certificate of {called} is not good at this time by the clock of {caller}.",
            f"If {called} brings its own ([server.tls]), put a newer one there. Else one of the two clocks is wrong by "
            "more than a day: set both by NTP.",
        ),
        Obstacle.NOT_TRUSTED: Meaning(
            called,
            f"{called} does not trust {caller}.",
            f"At {called}: `vfl peer list` shows {caller}. If it waits, `vfl peer confirm {caller}`; else enrol anew.",
        ),
        Obstacle.CALLER_OVERDUE: Meaning(
            BETWEEN,
            f"{called} takes the certificate of {caller} for not good at this time.",
            "One of the two clocks is wrong by more than a day: set both by NTP.",
        ),
        Obstacle.NOT_A_PARTY: Meaning(
            called,
            f"What answers at {address} has the key of {called}, but does not answer as a party's server.",
            f"At {called}: check what runs there, and whether a proxy stands in front of it.",
        ),
        Obstacle.OTHER_NAME: Meaning(
            called,
            f"The party at {address} has another name than {called}.",
            "Remove the peer, and enrol it again under the name in its party.toml.",
        ),
        Obstacle.TOO_SLOW: Meaning(
            called,
            f"The server at {address} did not answer in time.",
            f"At {called}: see whether the machine is overloaded, and look at the server's log.",
        ),
        Obstacle.CUT: Meaning(
            BETWEEN,
            "The connection was cut in the middle of an exchange.",
            f"See whether the server of {called} has ended; else look at proxies and firewalls in between.",
        ),
        Obstacle.OTHER_VERSION: Meaning(
            BETWEEN,
            f"{caller} and {called} speak different versions of the protocol between servers.",
            "Bring both servers to the same release.",
        ),
    }
    return meanings[obstacle]
