"""Two honest logs verify; whatever was changed in a bundle is found, by whomever it was changed."""

from pathlib import Path
from random import Random

from audited_parties import AuditedParty, Sent, acquainted, after_a_job
from bundle_edits import problems_of, rewritten, tampered
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from parties.trust.leaves import Event, Leaf, encode

TAMPERED, REWRITTEN = 350, 150
"""Together the 500 edits of each run; benchmarks/audit_edits.py makes ten thousand."""

# Honest logs


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "deliver", "deliver", "lose receipt", "late", "agree", "cosign", "word", "attempt"]),
        st.integers(0, 2),
        st.integers(1, 2),
        st.sampled_from(["job-1", "job-2"]),
    ),
    max_size=40,
)


def approving(parties: list[AuditedParty], messages: int) -> list[AuditedParty]:
    for party in parties:
        for job in ("job-1", "job-2"):
            party.approve({"Gradients": messages}, job)
    return parties


def agree_once(party: AuditedParty, job: str) -> None:
    if job not in party.contracts:
        party.agree(*party.peers, job=job)


def play(steps: list[tuple[str, int, int, str]]) -> list[AuditedParty]:
    """Three parties; what is sent arrives in order, later or never."""
    parties = approving(acquainted("bank", "clinic", "insurer"), len(steps))
    on_the_way: dict[tuple[int, int], list[Sent]] = {}
    attempts: dict[tuple[int, int, str], int] = {}
    for step, number, distance, job in steps:
        me, other = number, (number + distance) % 3
        link = (min(me, other), max(me, other), job)
        queue, back = on_the_way.setdefault((me, other), []), on_the_way.setdefault((other, me), [])
        if step == "agree":
            agree_once(parties[me], job)
        elif step == "cosign":
            parties[me].ask_to_cosign(parties[other])
        elif step == "attempt":
            attempts[link] = attempts.get(link, 1) + 1
            queue.clear()
            back.clear()
        elif step in {"send", "word"}:
            attempt, kind = attempts.get(link, 1), "Gradients" if step == "send" else "Abort"
            queue.append(parties[me].send(parties[other], kind, job, attempt + (step == "word")))
        elif queue:
            sent = queue.pop(0)
            receipt = parties[other].receive(parties[me], sent, is_late=step == "late")
            if step == "late":
                parties[me].take(receipt)
                over = (*link[:2], sent.job)  # the attempt that what came late belongs to, whichever job the step names
                attempts[over] = attempts.get(over, 1) + 1
                queue.clear()
                back.clear()
            elif step == "deliver":
                parties[me].take(receipt)
    return parties


@given(STEPS)
@example([("send", 0, 1, "job-2"), ("late", 0, 1, "job-1"), ("send", 0, 1, "job-2"), ("deliver", 0, 1, "job-1")])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_honest_logs_verify_alone_and_against_each_other(tmp_path: Path, steps) -> None:
    bank, clinic, insurer = (party.export() for party in play(steps))
    for bundles in [(bank,), (bank, clinic), (insurer, clinic), (insurer, bank)]:
        assert problems_of(tmp_path / "bundles", *bundles) == []


# Edits


def test_every_edit_without_a_key_is_found_and_the_first_bad_leaf_named(tmp_path: Path) -> None:
    bank, clinic = after_a_job()
    files, others = bank.export(), clinic.export()
    random = Random(12)
    for number in range(TAMPERED):
        edit = tampered(bank, files, random)
        problems = problems_of(tmp_path / "bundles", edit.files, *([others] if number % 2 else []))
        assert problems, edit.name
        if edit.first_bad_leaf is not None:
            named = [problem for problem in problems if problem.leaf is not None]
            assert named[0].leaf == edit.first_bad_leaf, edit.name
            assert named[0].bundle.startswith(str(tmp_path / "bundles" / "0")), edit.name


def test_every_edit_by_the_party_itself_is_found_with_the_bundle_of_its_peer(tmp_path: Path) -> None:
    bank, clinic = after_a_job()
    others = clinic.export()
    random = Random(13)
    for _ in range(REWRITTEN):
        edit = rewritten(bank, random)
        assert problems_of(tmp_path / "bundles", edit.files, others), edit.name


def test_a_party_that_keeps_its_cosigned_heads_cannot_change_what_they_count(tmp_path: Path) -> None:
    bank, _ = after_a_job()
    leaves = [*bank.leaves[:3], encode(Leaf(time_ms=1, event=Event.EXPORTED)), *bank.leaves[4:]]
    again = bank.with_leaves(leaves)
    again.heads = bank.heads
    assert any("does not extend its head" in problem.text for problem in problems_of(tmp_path / "b", again.export()))
