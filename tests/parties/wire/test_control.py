"""Neither party chooses the joint seed alone, and a peer's words are bounded before they are shown."""

import played_peers
import pytest

from parties.trust.contract import Signed
from parties.wire.control import (
    CONTROLS,
    Acceptance,
    Begin,
    Control,
    Join,
    Proposal,
    check_shares,
    commitment_to,
    decode_control,
    encode_control,
    failure_at,
    job_id,
    joint_seed,
)
from vfl.errors import RemoteProtocolError
from vfl.kinds import read_spec_as
from vfl.message import Grain, Reveals
from vfl.spec.training import TrainingSpec

OURS, THEIRS = b"f" * 32, b"l" * 32


def spec(seed: str = '"joint"') -> TrainingSpec:
    return read_spec_as(
        TrainingSpec,
        f"""
job = {{name = "test", task = "binary", seed = {seed}}}
roster = {{label = "bank", features = ["telco"]}}
train = {{epochs = 1, batch_rows = 64}}
[data]
bank = {{dataset = "table", label = "y"}}
telco = {{dataset = "other", columns = ["a"]}}
""",
    )


def test_the_joint_seed_needs_the_share_of_every_party() -> None:
    shares = {"bank": THEIRS, "telco": OURS}
    seeds = {joint_seed(spec(), shares), joint_seed(spec(), shares | {"bank": OURS}), joint_seed(spec("3"), shares)}
    assert len(seeds) == 3
    assert joint_seed(spec("3"), shares) == joint_seed(spec("3"), {})


@pytest.mark.parametrize(
    "shares",
    [
        {"bank": b"x" * 32, "telco": OURS},
        {"bank": THEIRS, "telco": b"x" * 32},
        {"bank": THEIRS},
    ],
)
def test_a_label_party_that_opens_another_share_than_it_committed_to_is_caught(shares: dict[str, bytes]) -> None:
    commitment = commitment_to(THEIRS)
    check_shares({"bank": THEIRS, "telco": OURS}, spec(), commitment, "telco", OURS)
    with pytest.raises(RemoteProtocolError, match="bank"):
        check_shares(shares, spec(), commitment, "telco", OURS)


@pytest.mark.parametrize(
    ("kind", "body"),
    [("Refusal", b"\x83\xa4code\xa1\xff"), ("Abort", b""), ("Finish", b"\x91" * 50_000), ("Begin", b"\xc0")],
)
def test_a_control_message_that_cannot_be_read_names_its_sender(kind: str, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=f"the {kind} of bank cannot be read"):
        decode_control("bank", kind, body)


SIGNED = Signed(bytes(32), bytes(64))


@pytest.mark.parametrize(("key", "signature"), [(31, 64), (33, 64), (32, 63), (32, 65)])
def test_a_key_or_signature_of_another_length_is_not_read(key: int, signature: int) -> None:
    acceptance = Acceptance(OURS, Signed(bytes(key), bytes(signature)))
    with pytest.raises(RemoteProtocolError, match="cannot be read"):
        decode_control("bank", "Acceptance", encode_control(acceptance))


@pytest.mark.parametrize("length", [0, 1, 31, 33, 50_000])
def test_a_share_or_commitment_of_another_length_is_not_read(length: int) -> None:
    for control in (
        Acceptance(bytes(length), SIGNED),
        Join(bytes(length), SIGNED),
        Proposal(b"", bytes(length), SIGNED),
        Begin({"bank": bytes(length)}, {}),
    ):
        with pytest.raises(RemoteProtocolError, match="cannot be read"):
            decode_control("bank", control.kind, encode_control(control))


def test_one_specification_proposed_twice_is_two_jobs() -> None:
    digest = spec().digest()
    ids = {job_id(digest, commitment_to(share)) for share in (OURS, THEIRS)}
    assert len(ids) == 2
    assert {identifier[:16] for identifier in ids} == {digest.hex()[:16]}


def test_a_peers_reason_is_shown_without_control_characters_and_never_at_length() -> None:
    failure = failure_at("telco", "ended", "Not A Code!", "\x1b[31m" + "x" * 5000)
    assert failure.code == "peer_aborted"
    assert "\x1b" not in failure.message
    assert len(failure.message) < 1100
    assert failure.side == "telco"


def test_the_seed_of_a_job_that_began_without_somebody_is_of_the_shares_it_carries() -> None:
    job = played_peers.spec()
    shares = {party: party.encode().ljust(32) for party in job.parties}
    some = {party: share for party, share in shares.items() if party != "cyd"}
    assert joint_seed(job, some) != joint_seed(job, shares)
    assert joint_seed(job, some) == joint_seed(job, dict(reversed(some.items())))


@pytest.mark.parametrize("absent", [(), ("cyd",), ("ada",)])
def test_who_the_job_can_do_without_begins_with_enough_shares(absent: tuple[str, ...]) -> None:
    job = played_peers.spec()
    given = {party: THEIRS for party in job.parties if party not in absent}
    check_shares(given, job, commitment_to(THEIRS), "cyd", THEIRS)
    for missing in ("hub", "ada" if "cyd" in absent else "bob"):
        fewer = {party: share for party, share in given.items() if party != missing}
        if len(fewer) < job.minimum_parties or missing == "hub":
            with pytest.raises(RemoteProtocolError, match="every party it needs"):
                check_shares(fewer, job, commitment_to(THEIRS), "cyd", THEIRS)


def test_every_control_word_says_what_it_reveals_and_reveals_no_value_of_a_table() -> None:
    """One that did would need a line in the table "what each side could see", which counts messages only."""
    assert set(CONTROLS.values()) == set(Control.__subclasses__())
    for kind, word in CONTROLS.items():
        reveals = word.__dict__.get("reveals")
        assert isinstance(reveals, Reveals), f"{kind} does not say what it reveals"
        assert reveals.learns
        assert reveals.grain is Grain.NOTHING, f"the values of {kind} are not counted"
