"""Notes, keys, checkpoints, cosignatures and proofs: published examples, and one encoding of each."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from parties.trust.errors import MalformedNote, NoteNotSigned
from parties.trust.notes import (
    Checkpoint,
    Note,
    Proof,
    SignatureLine,
    SignatureType,
    VerifierKey,
    cosigned_at,
    parse_number,
)

# c2sp.org/signed-note
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""
SPARSE_NOTE = """Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""  # noqa: E501
# golang.org/x/mod/sumdb/note
GO_SEED = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
GO_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=
"""
# A checkpoint of a public log of certificates, with lines of its own in two types and of four witnesses.
LOG_KEY = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
WITNESS_KEY = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
CHECKPOINT = """arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
"""  # noqa: E501 - as published
COSIGNED = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501 - c2sp.org/tlog-cosignature
PROOF = (
    """c2sp.org/tlog-proof@v1
extra c29tZSB3b3Jkcw==
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

"""
    + COSIGNED
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
PLAIN = VerifierKey("bank/audit-log", SignatureType.ED25519, PUBLIC)
WITNESS = VerifierKey("clinic/cosigner", SignatureType.COSIGNATURE, PUBLIC)


@pytest.mark.parametrize("text", [EXAMPLE_KEY, GO_KEY, ENOCH_KEY, LOG_KEY, WITNESS_KEY])
def test_a_published_key_is_read_and_written_as_it_was(text: str) -> None:
    assert str(VerifierKey.parse(text)) == text


@pytest.mark.parametrize(
    ("note", "key"),
    [
        (EXAMPLE_NOTE, EXAMPLE_KEY),
        (GO_NOTE, GO_KEY),
        (GO_NOTE, ENOCH_KEY),
        (CHECKPOINT, LOG_KEY),
        (CHECKPOINT, WITNESS_KEY),
    ],
)
def test_a_published_note_is_signed_by_its_key(note: str, key: str) -> None:
    parsed = Note.parse(note.encode())
    assert parsed.verify(VerifierKey.parse(key))
    assert str(parsed) == note


def test_a_note_is_signed_as_its_published_example() -> None:
    text, _, _ = GO_NOTE.partition("\n\n")
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(GO_SEED)[1:])
    line = VerifierKey.parse(GO_KEY).sign(f"{text}\n", private.sign)
    assert str(line) == GO_NOTE.splitlines(keepends=True)[3]


def test_the_text_of_a_note_may_have_empty_lines() -> None:
    assert Note.parse(SPARSE_NOTE.encode()).text.endswith("\n\ned è subito sera.\n")


def test_a_cosignature_says_when_it_was_made() -> None:
    note = Note.parse(COSIGNED.encode())
    assert Checkpoint.parse(note.text).size == 20852163
    assert cosigned_at(note.signatures[1]) == 1679315147
    with pytest.raises(MalformedNote, match="not a cosignature"):
        cosigned_at(note.signatures[0])


def test_a_cosignature_holds_for_its_checkpoint_and_its_time_alone() -> None:
    checkpoint = str(Checkpoint("bank/audit-log", 7, bytes(32)))
    line = WITNESS.cosign(checkpoint, 1_700_000_000, KEY.sign)
    WITNESS.verify(checkpoint, line)
    assert cosigned_at(line) == 1_700_000_000
    later = SignatureLine(line.name, line.key_id, (1_700_000_001).to_bytes(8, "big") + line.value[8:])
    for text, signed in [(checkpoint.replace("7", "8"), line), (checkpoint, later)]:
        with pytest.raises(NoteNotSigned, match="does not belong"):
            WITNESS.verify(text, signed)


def test_a_signature_of_one_type_is_none_of_the_other() -> None:
    text = str(Checkpoint("bank/audit-log", 7, bytes(32)))
    note = Note(text).signed(PLAIN.sign(text, KEY.sign)).signed(WITNESS.cosign(text, 5, KEY.sign))
    assert note.verify(PLAIN)
    assert note.verify(WITNESS)
    for name, type_ in [(PLAIN.name, WITNESS.type), (WITNESS.name, PLAIN.type)]:
        with pytest.raises(NoteNotSigned, match="not signed by"):
            note.verify(VerifierKey(name, type_, PUBLIC))


def test_a_newer_cosignature_takes_the_place_of_the_older() -> None:
    text = str(Checkpoint("bank/audit-log", 7, bytes(32)))
    note = Note(text).signed(WITNESS.cosign(text, 5, KEY.sign)).signed(WITNESS.cosign(text, 6, KEY.sign))
    assert [cosigned_at(line) for line in note.signatures] == [6]


def test_a_proof_is_read_and_written_as_it_was() -> None:
    proof = Proof.parse(PROOF.encode())
    assert (proof.index, len(proof.path), proof.extra) == (73894, 2, b"some words")
    assert str(proof) == PROOF
    bare = Proof(0, (), proof.checkpoint)
    assert Proof.parse(str(bare).encode()) == bare


@pytest.mark.parametrize(
    "broken",
    [
        EXAMPLE_NOTE.replace("\n", "\r\n"),
        EXAMPLE_NOTE[:-1],
        EXAMPLE_NOTE + "\n",
        EXAMPLE_NOTE.replace("\n\n", "\n"),
        EXAMPLE_NOTE.replace("—", "-"),
        EXAMPLE_NOTE.replace("— ", "—  "),
        EXAMPLE_NOTE.replace("aQM=", "aQN="),  # the same bytes, and a bit that nobody reads
        EXAMPLE_NOTE.replace("aQM=", "aQM"),
        EXAMPLE_NOTE.replace("aQM=", "aQM=="),
        EXAMPLE_NOTE.replace("Uw2Q", "Uw2Q\t"),
        EXAMPLE_NOTE.replace("example.com/foo", "example+foo"),
        EXAMPLE_NOTE.replace("example.com/foo ", "example foo "),
        EXAMPLE_NOTE.replace("example.com/foo ", " "),
        EXAMPLE_NOTE.replace(" example ", " \x07 "),
        EXAMPLE_NOTE + EXAMPLE_NOTE.splitlines(keepends=True)[2],  # the same line twice
        EXAMPLE_NOTE + "— a AAAAAA==\n",  # an id and no signature
        EXAMPLE_NOTE + "".join(f"— n{number} AAAAAAAA\n" for number in range(32)),
        "text " * 50_000 + EXAMPLE_NOTE,
        "",
        "\n",
        "\n\n",
    ],
)
def test_a_note_that_is_not_written_as_it_should_be_is_refused(broken: str) -> None:
    with pytest.raises(MalformedNote):
        Note.parse(broken.encode())


def test_a_note_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(MalformedNote, match="UTF-8"):
        Note.parse(EXAMPLE_NOTE.encode() + b"\xff\n")


@pytest.mark.parametrize(
    "broken",
    [
        EXAMPLE_KEY[:-1],
        EXAMPLE_KEY.replace("530d903a", "530d903b"),
        EXAMPLE_KEY.replace("530d903a", "530D903A"),
        EXAMPLE_KEY.replace("foo", "fou"),
        EXAMPLE_KEY.replace("example.com", "example com"),
        EXAMPLE_KEY.replace("+Ae", "+Ce"),
        GO_KEY.replace("PeterNeumann", ""),
        "a+b",
        "",
    ],
)
def test_a_key_that_is_not_written_as_it_should_be_is_refused(broken: str) -> None:
    with pytest.raises(MalformedNote):
        VerifierKey.parse(broken)


HEAD = str(Checkpoint("bank/audit-log", 12, bytes(32)))


@pytest.mark.parametrize(
    "broken",
    [
        HEAD.replace("12", "012"),
        HEAD.replace("12", "+12"),
        HEAD.replace("12", "-12"),
        HEAD.replace("12", "1_2"),
        HEAD.replace("12", "\u0661\u0662"),
        HEAD.replace("12", "9" * 19 + "9"),
        HEAD.replace("12", ""),
        HEAD.replace("bank/audit-log", ""),
        HEAD.replace("AAA=", "AAB="),
        HEAD.replace("AAAA", "", 1),
        HEAD + "\n",
        HEAD[:-1],
        "bank/audit-log\n12\n",
    ],
)
def test_a_checkpoint_that_is_not_written_as_it_should_be_is_refused(broken: str) -> None:
    with pytest.raises(MalformedNote):
        Checkpoint.parse(broken)


def test_a_checkpoint_keeps_lines_it_does_not_know() -> None:
    assert Checkpoint.parse(f"{HEAD}more\n").extensions == ("more",)


@pytest.mark.parametrize(
    "broken",
    [
        PROOF.replace("@v1", "@v2"),
        PROOF.replace("index 73894", "index 073894"),
        PROOF.replace("index 73894", "73894"),
        PROOF.replace("index 73894\n", ""),
        PROOF.replace("extra c29tZSB3b3Jkcw==", "extra "),
        PROOF.replace("extra", "other"),
        PROOF.replace("gSKy", "gSKygSKy"),
        PROOF.replace("index 73894\n", "index 73894\n" + "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n" * 62),
        PROOF.replace("XmA=\n\n", "XmA=\n\n\n"),
        PROOF.partition("\n\n")[0],
        "c2sp.org/tlog-proof@v1\n\n" + COSIGNED,
        "",
    ],
)
def test_a_proof_that_is_not_written_as_it_should_be_is_refused(broken: str) -> None:
    with pytest.raises(MalformedNote):
        Proof.parse(broken.encode())


@given(st.integers(0, 2**63 - 1))
def test_a_number_has_one_spelling(number: int) -> None:
    assert parse_number(str(number)) == number


def verify_both(note: bytes) -> None:
    for key in (GO_KEY, ENOCH_KEY):
        Note.parse(note).verify(VerifierKey.parse(key))


@given(st.integers(0, 8 * len(GO_NOTE.encode()) - 1))
def test_a_note_with_one_changed_bit_is_refused_or_no_longer_signed_by_both(bit: int) -> None:
    changed = bytearray(GO_NOTE.encode())
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((MalformedNote, NoteNotSigned)):
        verify_both(bytes(changed))


@given(st.text(max_size=60))
def test_whatever_is_read_as_a_note_or_a_key_is_written_the_same(text: str) -> None:
    for written, parse in [
        (f"{text}\n\n— a AAAAAAAA\n", lambda: str(Note.parse(f"{text}\n\n— a AAAAAAAA\n".encode("utf-8", "replace")))),
        (text, lambda: str(VerifierKey.parse(text))),
    ]:
        try:
            assert parse() == written
        except MalformedNote:
            continue
