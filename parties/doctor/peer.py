"""A peer and the network on the way to it, and its own view of the way back."""

import time
from collections.abc import Iterator

import msgspec

from parties.doctor.call import ANSWER_SECONDS, Blocked, Call, call_peer
from parties.doctor.findings import (
    BETWEEN,
    FAILED,
    HERE,
    NETWORK,
    NOT_CHECKED,
    OK,
    PEER,
    WARNING,
    Finding,
    not_checked,
)
from parties.doctor.half import CALL_BACK_SECONDS, OPEN_WAY, NoView, View, ask
from parties.doctor.obstacles import STEP, Obstacle, Step, meaning
from parties.peers import Peers
from parties.storage.peer_store import REMOVED, StoredPeer
from parties.wire.envelopes import WIRE_VERSION
from vfl.spec.sections import PartyId

CALL_SECONDS = 12.0
"""All that is asked of the network and of the peer."""
PROBES = (1 << 20, 8 << 20)
PROBE_SECONDS = 5.0
SKEW_WARNING_SECONDS, SKEW_LIMIT_SECONDS = 30.0, 300.0
KNOWN, SIGNED, CLOCK, RELEASES, WAY_BACK = "known here", "signature", "clock", "release", "the way back"
ROUND_TRIP = "round trip"
TOO_OFTEN = 429
"""The HTTP status of a peer that was asked for more checks than it answers in a while."""
SKIPPED, UNKNOWN = "An earlier step failed.", "Its address is not known here."
TALKS = (SIGNED, CLOCK, RELEASES, WAY_BACK)
CALLED_AT = {Step.NAME, Step.CONNECTION, Step.HANDSHAKE, Step.KEY}
"""The steps that a wrong address can fail at."""
AREA = {Step.TRUST: PEER, Step.PARTY: PEER, Step.VERSION: PEER}


def _probe(size: int) -> str:
    return f"{size >> 20} MiB at once"


MEASURES = (ROUND_TRIP, *map(_probe, PROBES))


class PeerCheck:
    """One look at one peer. Used by one thread."""

    def __init__(self, peers: Peers, name: PartyId, own_address: str, release: str) -> None:
        """`own_address` is where this party believes that its peers reach it."""
        self._peers, self._name, self._own_address = peers, name, own_address
        self._me, self._release = peers.identity.name, release

    def findings(self) -> list[Finding]:
        return sorted(self._look(), key=lambda finding: (NETWORK, PEER).index(finding.area))

    def _look(self) -> Iterator[Finding]:
        peer = next((each for each in self._peers.all() if each.name == self._name), None)
        yield self._standing(peer)
        if peer is None or peer.state == REMOVED:
            yield from self._unknown()
            return
        try:
            with call_peer(self._peers.tls, peer, CALL_SECONDS) as call:
                began = time.monotonic()
                call.greet(self._name)
                took = time.monotonic() - began
                yield from self._steps(peer, None)
                yield from self._talk(call, peer, took)
        except Blocked as blocked:
            yield from self._steps(peer, blocked.obstacle)
            yield from not_checked(PEER, TALKS, self._name, SKIPPED)
            yield from not_checked(NETWORK, MEASURES, BETWEEN, SKIPPED)

    def _standing(self, peer: StoredPeer | None) -> Finding:
        if peer is None or peer.state == REMOVED:
            fix = "Enrol it: `vfl peer invite` at one side, `vfl peer accept` at the other."
            return Finding(PEER, KNOWN, FAILED, HERE, f"{self._me} does not know a party {self._name}.", fix)
        if not peer.is_trusted:
            fix = f"Compare the six words by telephone, then `vfl peer confirm {self._name}`."
            return Finding(PEER, KNOWN, FAILED, HERE, f"{self._name} waits for this operator's yes.", fix)
        return Finding(PEER, KNOWN, OK, HERE, f"{self._name} is trusted, at {peer.address}.")

    def _unknown(self) -> Iterator[Finding]:
        for step in Step:
            yield from not_checked(AREA.get(step, NETWORK), [step.value], self._name, UNKNOWN)
        yield from not_checked(PEER, TALKS, self._name, UNKNOWN)
        yield from not_checked(NETWORK, MEASURES, BETWEEN, UNKNOWN)

    def _steps(self, peer: StoredPeer, obstacle: Obstacle | None) -> Iterator[Finding]:
        """A line for each step of the call: those before the obstacle, it, and those after it."""
        fine = {
            Step.NAME: f"{peer.address.rpartition(':')[0]} is found.",
            Step.CONNECTION: f"{peer.address} takes connections.",
            Step.HANDSHAKE: "It speaks TLS 1.3.",
            Step.KEY: f"Its certificate is of the pinned key of {self._name}.",
            Step.TRUST: f"{self._name} trusts {self._me}.",
            Step.PARTY: f"A party named {self._name} answers.",
            Step.VERSION: f"Both speak version {WIRE_VERSION}.",
        }
        ended = False
        for step in Step:
            area = AREA.get(step, NETWORK)
            if obstacle is not None and STEP[obstacle] is step:
                ended = True
                side, text, fix = meaning(obstacle, self._me, self._name, peer.address)
                yield Finding(area, step.value, FAILED, self._side(side), text, fix)
            elif ended:
                yield Finding(area, step.value, NOT_CHECKED, self._name, SKIPPED)
            else:
                yield Finding(area, step.value, OK, self._name, fine[step])

    def _side(self, side: str) -> str:
        return HERE if side == self._me else side

    # What a party that answers is asked

    def _talk(self, call: Call, peer: StoredPeer, first_seconds: float) -> Iterator[Finding]:
        asked: list[str] = [*TALKS, *MEASURES]
        try:
            began = time.time()
            view = self._ask(call, peer, ANSWER_SECONDS)
            ended = time.time()
            if isinstance(view, Finding):
                yield view
                for check in asked[1:]:
                    area = PEER if check in TALKS else NETWORK
                    yield from not_checked(area, [check], self._name, "The peer's half has no answer that counts.")
                return
            for finding in (
                Finding(PEER, SIGNED, OK, self._name, "Its answer is signed by the pinned key."),
                self._clock(view.time - (began + ended) / 2, ended - began),
                self._releases(view),
                self._way_back(call, peer),
                self._round_trip(min(first_seconds, ended - began)),
            ):
                asked.remove(finding.check)
                yield finding
            for size in PROBES:
                finding = self._passes(call, peer, size)
                asked.remove(finding.check)
                yield finding
                if finding.result == FAILED:
                    break
        except Blocked as blocked:
            side, text, fix = meaning(blocked.obstacle, self._me, self._name, peer.address)
            check = asked.pop(0)
            yield Finding(PEER if check in TALKS else NETWORK, check, FAILED, self._side(side), text, fix)
        for check in asked:
            area = PEER if check in TALKS else NETWORK
            yield Finding(area, check, NOT_CHECKED, BETWEEN, SKIPPED)

    def _ask(self, call: Call, peer: StoredPeer, seconds: float, *, calls_back: bool = False) -> View | Finding:
        """Raises Blocked."""
        try:
            return ask(call, peer, self._me, seconds, calls_back=calls_back)
        except NoView as error:
            return no_view(error.status, self._name, self._me)

    def _clock(self, skew: float, round_trip: float) -> Finding:
        amount = abs(skew)
        if amount <= max(1.0, round_trip):
            return Finding(PEER, CLOCK, OK, BETWEEN, "Both clocks agree within a second.")
        text = f"The clock of {self._name} is {amount:.0f} s {'ahead of' if skew > 0 else 'behind'} this one."
        if amount <= SKEW_WARNING_SECONDS:
            return Finding(PEER, CLOCK, OK, BETWEEN, text)
        result = FAILED if amount > SKEW_LIMIT_SECONDS else WARNING
        return Finding(PEER, CLOCK, result, BETWEEN, text, "Let NTP set both clocks, and ask which one was wrong.")

    def _releases(self, view: View) -> Finding:
        if view.release == self._release:
            return Finding(PEER, RELEASES, OK, BETWEEN, f"Both run release {self._release}.")
        text = f"{self._name} runs release {view.release[:40]}, and {self._me} runs {self._release}."
        return Finding(PEER, RELEASES, WARNING, BETWEEN, text, "Bring both servers to the same release.")

    def _way_back(self, call: Call, peer: StoredPeer) -> Finding:
        view = self._ask(call, peer, CALL_BACK_SECONDS + 1.0, calls_back=True)
        if isinstance(view, Finding):
            return msgspec.structs.replace(view, check=WAY_BACK)
        if view.way_back == OPEN_WAY:
            text = f"{self._name} reaches this party at {view.address}."
            return Finding(PEER, WAY_BACK, OK, HERE, text)
        try:
            obstacle = Obstacle(view.way_back)
        except ValueError:
            text = f"{self._name} does not reach this party at {view.address}, for a reason unknown to this release."
            return Finding(PEER, WAY_BACK, FAILED, BETWEEN, text, "Run `vfl doctor` at the other side.")
        side, text, fix = meaning(obstacle, self._name, self._me, view.address, self._own_address)
        if view.address != self._own_address and STEP[obstacle] in CALLED_AT:
            side, text = self._name, f"{text} This party's own address is {self._own_address}."
        return Finding(PEER, WAY_BACK, FAILED, self._side(side), text, fix)

    # What is measured

    def _round_trip(self, seconds: float) -> Finding:
        return Finding(NETWORK, ROUND_TRIP, OK, BETWEEN, f"{seconds * 1000:.1f} ms for a question and its answer.")

    def _passes(self, call: Call, peer: StoredPeer, size: int) -> Finding:
        began, check = time.monotonic(), _probe(size)
        fix = (
            f"A message may have 80 MiB. Raise the limit for bodies in every proxy in front of {self._name} "
            "(client_max_body_size, for example), or let TLS pass as it is."
        )
        try:
            ask(call, peer, self._me, PROBE_SECONDS, padding=size)
        except NoView as refused:
            if refused.status == TOO_OFTEN:  # by the peer itself: it says nothing about the way
                return msgspec.structs.replace(no_view(TOO_OFTEN, self._name, self._me), area=NETWORK, check=check)
            return Finding(NETWORK, check, FAILED, BETWEEN, "It was refused on its way.", fix)
        except Blocked as blocked:
            if blocked.obstacle is Obstacle.TOO_SLOW:
                text = f"{size >> 20} MiB did not get through in the time there was."
                return Finding(NETWORK, check, WARNING, BETWEEN, text, "The line is slow: jobs take longer on it.")
            return Finding(NETWORK, check, FAILED, BETWEEN, "The connection was cut in the middle of it.", fix)
        rate = size / max(time.monotonic() - began, 1e-6) / (1 << 20)
        return Finding(NETWORK, check, OK, BETWEEN, f"It got through, at {rate:.1f} MiB/s.")


def no_view(status: int, name: PartyId, me: PartyId) -> Finding:
    """Of a peer whose half has no answer that counts."""
    if status == 200:
        text = "Its answer is not signed by the pinned key, or answers another question."
        fix = "Something changes what the two parties say: look for a proxy, and tell the other operator."
        return Finding(PEER, SIGNED, FAILED, BETWEEN, text, fix)
    if status == TOO_OFTEN:
        fix = "Wait a minute, then run `vfl doctor` again."
        return Finding(PEER, SIGNED, WARNING, HERE, f"{name} was asked for checks too often.", fix)
    fix = f"At {name}: install the release of {me} or a later one, and restart the server."
    text = f"{name} does not answer checks: it says {status}, as an older release does."
    return Finding(PEER, SIGNED, WARNING, name, text, fix)
