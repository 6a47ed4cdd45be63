"""What the verifier finds, what it cannot, and how it is run."""

import ast
import base64
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from audited_parties import SPECIFICATION_DIGEST, AuditedParty, acquainted, after_a_job, exchange
from bundle_edits import problems_of, texts

from parties.trust import verifier
from parties.trust.bundle import SignedReceipt, write_bundle
from parties.trust.contract import Contract, sign
from parties.trust.identity import Identity
from parties.trust.leaves import Event, Leaf
from parties.trust.log_keys import cosigning_key
from parties.wire.control import CONTROLS
from parties.wire.door import UNCOUNTED

PROCESS_SECONDS = 60


def test_without_its_peer_a_party_can_rewrite_what_nobody_cosigned(tmp_path: Path) -> None:
    bank, clinic = acquainted("bank", "clinic")
    exchange(bank, clinic, "Proposal", attempt=0)
    again = bank.with_leaves(bank.leaves[:1])
    again.receipts = {}
    assert not texts(tmp_path, again.export())
    assert "its log does not hold it" in texts(tmp_path, again.export(), clinic.export())


def test_what_a_peer_signed_for_and_removed_from_its_log_is_found(tmp_path: Path) -> None:
    bank, clinic = acquainted("bank", "clinic")
    exchange(bank, clinic, "Proposal", attempt=0)
    found = problems_of(tmp_path / "bundles", bank.export(), clinic.with_leaves(clinic.leaves[:1]).export())
    assert [problem.leaf for problem in found] == [1]
    assert "clinic signed for number 0 from bank to clinic in attempt 0 of job job-1" in found[0].text


def test_a_party_that_signs_two_envelopes_of_one_number_is_named(tmp_path: Path) -> None:
    bank, clinic = acquainted("bank", "clinic")
    bank.send(clinic, "Proposal", attempt=0)
    clinic.receive(bank, AuditedParty("bank").send(clinic, "Begin", attempt=0))
    assert "bank signed two envelopes as number 0" in texts(tmp_path, bank.export(), clinic.export())


def test_a_refused_second_envelope_of_one_number_is_proof_in_one_bundle(tmp_path: Path) -> None:
    bank, clinic = acquainted("bank", "clinic")
    clinic.receive(bank, bank.send(clinic, "Begin"))
    other = AuditedParty("bank").send(clinic, "Waiting")
    clinic.log_envelope(Event.REFUSED, bank, other, detail={"code": "equivocation"})
    assert "bank signed two envelopes as number 0" in texts(tmp_path, clinic.export())
    forged = msgspec.structs.replace(other, signature=bytes(64))
    again = clinic.with_leaves(clinic.leaves[:-1])
    again.log_envelope(Event.REFUSED, bank, forged, detail={"code": "unknown_sender"})
    assert not texts(tmp_path, again.export())


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"sequence": 1}, "where number 0 was due"),
        ({"previous": bytes([1] * 32)}, "names another before it"),
        ({"key": bytes(32)}, "bank has not signed this envelope"),
        ({"receiver": "insurer"}, "header is that of another envelope"),
        ({"attempt": "one"}, "header is none"),
    ],
)
def test_an_envelope_out_of_its_place_is_found(tmp_path: Path, changed, found: str) -> None:
    bank, clinic = acquainted("bank", "clinic")
    bank.send(clinic, "Proposal", attempt=0)
    bank.send(clinic, "Begin", **changed)
    problems = problems_of(tmp_path / "bundles", bank.export())
    assert [problem.leaf for problem in problems] == [2]
    assert found in problems[0].text


def test_a_receipt_for_what_was_never_sent_is_found(tmp_path: Path) -> None:
    bank, clinic = after_a_job()
    lane = ("clinic", "job-1", 1)
    receipt = bank.receipts[lane]
    for forged in (
        msgspec.structs.replace(receipt, next=receipt.next - 1),
        msgspec.structs.replace(receipt, last=bytes(32)),
    ):
        message = b"vfl-receipt-v1\0" + forged.signed_message("bank")
        signed = msgspec.structs.replace(forged, signature=clinic.identity.sign(message))
        assert "for an envelope that this log does not hold" in texts(tmp_path, bank.export(receipts=[signed]))
        assert "is not signed by clinic" in texts(tmp_path, bank.export(receipts=[forged]))


# What was agreed


def after_sending(kinds: Sequence[str], approved: Mapping[str, int | str] | None) -> tuple[AuditedParty, AuditedParty]:
    """The clinic has sent the bank these messages, with this budget or without any approval."""
    bank, clinic = acquainted("bank", "clinic")
    if approved is not None:
        clinic.approve(approved)
    for kind in kinds:
        exchange(clinic, bank, kind)
    return bank, clinic


def test_a_message_beyond_the_budget_of_its_job_is_named(tmp_path: Path) -> None:
    sent = ["Begin", "EncryptedEmbedding", "OpenedGradient", "EncryptedEmbedding", "OpenedGradient"]
    bank, clinic = after_sending(sent, {"EncryptedEmbedding": "-", "OpenedGradient": 2})
    assert not texts(tmp_path, clinic.export(), bank.export())
    exchange(clinic, bank, "OpenedGradient")
    (problem,) = problems_of(tmp_path / "bundles", clinic.export())
    assert (problem.leaf, len(clinic.leaves)) == (7, 8)
    assert "message 3 of kind OpenedGradient to bank in job job-1, and 2 are the most that was approved" in problem.text


@pytest.mark.parametrize("approved", [None, {}, {"EncryptedScores": 9}], ids=str)
def test_what_no_budget_names_may_not_leave(tmp_path: Path, approved: dict[str, int] | None) -> None:
    bank, clinic = after_sending(["OpenedGradient"], approved)
    assert "message 1 of kind OpenedGradient to bank in job job-1, and 0 are" in texts(tmp_path, clinic.export())
    clinic.approve({"OpenedGradient": 9})  # too late
    assert "and 0 are the most that was approved" in texts(tmp_path, clinic.export(), bank.export())


def test_a_second_approval_raises_no_budget_and_each_peer_has_its_own(tmp_path: Path) -> None:
    bank, clinic, insurer = acquainted("bank", "clinic", "insurer")
    clinic.approve({"OpenedGradient": 1})
    exchange(clinic, bank, "OpenedGradient")
    exchange(clinic, insurer, "OpenedGradient")
    assert not texts(tmp_path, clinic.export())
    clinic.approve({"OpenedGradient": 2})
    exchange(clinic, bank, "OpenedGradient")
    assert "message 2 of kind OpenedGradient to bank" in texts(tmp_path, clinic.export())


def test_of_a_message_in_parts_the_first_part_counts(tmp_path: Path) -> None:
    bank, clinic = after_sending([], {"OpenedGradient": 1})
    for part in (1, 2, 3):
        clinic.send(bank, "OpenedGradient", part=part, parts=3)
    assert not texts(tmp_path, clinic.export())


def test_each_changed_bit_of_a_specification_is_found_and_its_side_named(tmp_path: Path) -> None:
    _, clinic = after_a_job()
    contract = clinic.contracts["job-1"]
    for bit in range(8 * len(contract.spec)):
        spec = bytearray(contract.spec)
        spec[bit // 8] ^= 1 << bit % 8
        first, *_ = problems_of(
            tmp_path / "bundles", clinic.export(contracts={"job-1": Contract(bytes(spec), contract.signed)})
        )
        assert "(clinic)" in first.bundle
        assert "contracts/job-1.specification is not what was agreed. It was changed; the log is whole." in first.text


def test_an_envelope_under_another_specification_than_the_agreed_one_is_named(tmp_path: Path) -> None:
    bank, clinic = acquainted("bank", "clinic")
    bank.agree(clinic)
    bank.send(clinic, "Begin", job_digest=bytes(32))
    (problem,) = problems_of(tmp_path / "bundles", bank.export())
    assert (problem.leaf, "under another specification than the one that was agreed" in problem.text) == (2, True)


def test_both_sides_must_have_signed_a_contract_with_the_keys_that_are_known(tmp_path: Path) -> None:
    _, clinic = after_a_job()
    contract = clinic.contracts["job-1"]
    for party in ("bank", "clinic"):
        without = {name: signed for name, signed in contract.signed.items() if name != party}
        mallory = sign(Identity(party, AuditedParty("mallory").identity), "job-1", SPECIFICATION_DIGEST)
        for signed in (without, without | {party: mallory}):
            bundle = clinic.export(contracts={"job-1": Contract(contract.spec, signed)})
            assert f"{party} has not signed this contract of job job-1" in texts(tmp_path, bundle)
    assert "bank has not signed this contract" in texts(tmp_path, clinic.export(contracts={}))


def test_the_contract_of_a_job_that_revealed_nothing_may_be_forgotten(tmp_path: Path) -> None:
    bank, clinic = after_a_job()
    assert not texts(tmp_path, bank.export(contracts={}), clinic.export())


def test_a_changed_manifest_of_a_model_is_found_and_one_that_was_removed_is_not_an_error(tmp_path: Path) -> None:
    bank, clinic = after_a_job()
    manifest = clinic.manifests["job-1"]
    changed = clinic.export(manifests={"job-1": manifest.replace(b"ab", b"ac")})
    (problem,) = problems_of(tmp_path / "bundles", changed)
    assert problem.leaf == 20
    assert "models/job-1.json is not the manifest that was logged when the job ended. It was changed" in problem.text
    assert "at clinic" in problem.text
    assert "models/job-2.json" in texts(tmp_path, clinic.export(manifests={"job-2": manifest}))
    assert not texts(tmp_path, clinic.export(manifests={}), bank.export())


# Keys


def test_a_party_that_names_another_key_of_its_peer_was_deceived(tmp_path: Path) -> None:
    bank, clinic = acquainted("bank", "clinic")
    false = replace(clinic.keys, identity=AuditedParty("mallory").keys.identity)
    assert "names other keys of clinic" in texts(tmp_path, bank.export(peers=[false]), clinic.export())
    assert "names other keys of clinic" in texts(tmp_path, bank.export(peers=[]), clinic.export())


def test_a_bundle_of_other_keys_is_found_by_the_key_that_is_known(tmp_path: Path) -> None:
    impostor = AuditedParty("bank")
    impostor.identity = AuditedParty("mallory").identity
    impostor.log(Event.EXPORTED)
    write_bundle(tmp_path / "bank", impostor.export())
    known = {"bank": AuditedParty("bank").keys.identity}
    assert verifier.check_all([tmp_path / "bank"], {})[1] == []
    (problem,) = verifier.check_all([tmp_path / "bank"], known)[1]
    assert "another key of bank" in problem.text


def test_a_witness_counts_by_the_key_that_the_auditor_knows(tmp_path: Path) -> None:
    bank, auditor, impostor = AuditedParty("bank"), AuditedParty("auditor"), AuditedParty("impostor")
    bank.log(Event.EXPORTED)
    bank.ask_to_cosign(auditor)
    key = cosigning_key("auditor", auditor.keys.cosigning)
    write_bundle(tmp_path / "bank", bank.export(witnesses=[key]))
    known, false = ({key.name: of.keys.cosigning} for of in (auditor, impostor))
    assert verifier.check_all([tmp_path / "bank"], known)[1] == []
    (problem,) = verifier.check_all([tmp_path / "bank"], false)[1]
    assert f"another key of {key.name}" in problem.text
    told = run(tmp_path / "bank", "--key", f"{key.name}={str(key).split('+', 2)[2]}")
    assert (told.returncode, f"cosigned up to leaf 1 by {key.name}" in told.stdout) == (0, True)


def test_no_witness_passes_for_a_peer(tmp_path: Path) -> None:
    bank, _clinic = acquainted("bank", "clinic")
    impostor = AuditedParty("clinic")
    impostor.cosigning = AuditedParty("mallory").cosigning
    bank.ask_to_cosign(impostor)
    write_bundle(tmp_path / "bank", bank.export(witnesses=[cosigning_key("clinic", impostor.keys.cosigning)]))
    told = run(tmp_path / "bank")
    assert (told.returncode, "cosigned by nobody" in told.stdout) == (0, True)


# The program


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Isolated: neither the project nor the folder that it is started in can be imported."""
    command = [sys.executable, "-I", verifier.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=False, cwd="/")


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, Path]:
    for party in after_a_job():
        write_bundle(tmp_path / party.name, party.export())
    return tmp_path / "bank", tmp_path / "clinic"


def test_the_program_says_what_it_verified_and_what_nothing_proves(exported: tuple[Path, Path]) -> None:
    alone = run(exported[0])
    assert alone.returncode == 0
    last = alone.stdout.splitlines()[-1]
    assert last.startswith("Verified, heads: bank ")
    assert "NOT proven" in last
    assert "name a peer's bundle too" in last
    keys = [
        f"--key={name}={base64.b64encode(AuditedParty(name).keys.identity).decode()}" for name in ("bank", "clinic")
    ]
    both = run(*exported, *keys)
    assert (both.returncode, both.stderr) == (0, "")
    assert "21 leaves, 17 envelopes, manifests of models: 1, cosigned up to leaf 21 by clinic/cosigner" in both.stdout
    assert "--key" not in both.stdout


def test_the_program_names_the_bundle_and_the_first_bad_leaf(exported: tuple[Path, Path]) -> None:
    path = exported[1] / "leaves.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for arguments in [(exported[1],), exported]:
        done = run(*arguments)
        assert done.returncode == 1
        assert done.stdout.startswith(f"{exported[1]} (clinic), leaf 20: It is not the leaf that was logged.")
        assert done.stderr == ""


def test_the_copy_in_a_bundle_is_the_same_program(exported: tuple[Path, Path]) -> None:
    assert (exported[0] / "verifier.py").read_bytes() == Path(verifier.__file__).read_bytes()
    assert "--key" in (exported[0] / "README.txt").read_text("utf-8")


@pytest.mark.parametrize("change", ["party.json", "leaves.bin", "manifest"])
def test_a_bundle_without_one_of_its_files_is_refused(exported: tuple[Path, Path], change: str) -> None:
    (exported[0] / change).unlink()
    done = run(*exported)
    assert (done.returncode, done.stderr) == (1, "")
    assert "missing or cannot be read" in done.stdout


def test_a_file_that_the_manifest_does_not_name_is_found(exported: tuple[Path, Path]) -> None:
    (exported[0] / "contracts" / "job-2.specification").write_text("never agreed")
    assert "contracts/job-2.specification is not the file of the manifest" in run(exported[0]).stdout


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"], ["a", "--key", "bank=?"], ["a", "--nothing"]], ids=" ".join)
def test_wrong_arguments_are_told_apart_from_a_bad_bundle(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_no_name_in_a_bundle_can_steer_a_terminal(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", AuditedParty("bank\x1b[2J\nVerified").export())
    assert [line for line in run(tmp_path / "bundle").stdout.splitlines() if line.startswith("Verified")] == []
    assert "\x1b" not in run(tmp_path / "bundle").stdout


def test_two_bundles_of_one_party_are_wrong_arguments(exported: tuple[Path, Path]) -> None:
    assert run(exported[0], exported[0]).returncode == 2


def test_nothing_that_a_bundle_may_hold_breaks_the_program(tmp_path: Path) -> None:
    bank, clinic = acquainted("bank", "clinic")
    for receipts in ({"receiver": 1}, [1], [{"receiver": "clinic"}], None, [{**json.loads(RECEIPT), "next": 2**70}]):
        files = bank.export() | {"receipts.json": json.dumps(receipts).encode()}
        assert "cannot be read" in texts(tmp_path, files, clinic.export())


@pytest.mark.parametrize("file", ["party.json", "receipts.json", "contracts/job-1.signatures"])
def test_a_file_that_nests_without_end_is_one_that_cannot_be_read(exported: tuple[Path, Path], file: str) -> None:
    (exported[0] / file).write_text("[" * 100_000)
    done = run(*exported)
    assert (done.returncode, done.stderr) == (1, "")
    assert "cannot be read" in done.stdout


def test_a_key_that_belongs_to_nobody_in_the_bundles_is_told(exported: tuple[Path, Path]) -> None:
    """Its name is misspelt, or the party has left its witness out of the bundle."""
    key = base64.b64encode(AuditedParty("bank").keys.identity).decode()
    done = run(*exported, f"--key=bank={key}", f"--key=auditor.example.org={key}")
    assert (done.returncode, done.stderr) == (1, "")
    assert "No bundle names auditor.example.org" in done.stdout
    assert run(*exported, f"--key=bank={key}").returncode == 0


RECEIPT = json.dumps(
    SignedReceipt(receiver="clinic", job="j", attempt=1, next=1, last=bytes(32), signature=bytes(64)).as_json()
)


def test_the_verifier_needs_cryptography_and_the_standard_library_alone() -> None:
    tree = ast.parse(Path(verifier.__file__).read_text("utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert "cryptography" in imported
    assert imported - {"cryptography"} <= sys.stdlib_module_names


def test_the_verifier_knows_the_same_events_and_fields_as_the_leaves() -> None:
    assert set(Event) == verifier.ENVELOPE_EVENTS | verifier.OTHER_EVENTS
    assert tuple(verifier.LEAF) == Leaf.__struct_fields__


def test_the_verifier_knows_the_words_that_need_no_budget() -> None:
    assert set(CONTROLS) == verifier.WORDS
    assert verifier.OUTSIDE_THE_COUNT == UNCOUNTED
