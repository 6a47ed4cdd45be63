"""Whoever records the line between two servers sees TLS 1.3, and nothing that was planted; nor do the peer's files.

The job trains in clear, so that nothing but TLS protects what travels.
"""

import base64
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from identities import identity_of, tls_at
from label_side import Label
from recording_line import (
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    CLIENT_HELLO,
    EARLY_DATA,
    HANDSHAKE,
    SERVER_HELLO,
    SUPPORTED_VERSIONS,
    RecordingLine,
    hello_extensions,
    records,
)

LABEL, FEATURE = "label-party", "feature-party"
ROWS = 300
FEATURE_VALUE, LABEL_VALUE = 0.7310842956134217, 0.2958471630942518
IDS = "canary-0c7f-"
COLUMN = "canary_column"
TLS_13 = b"\x03\x04"
LONG_PIECE, CHANGED_BITS = 1024, 3
BOUND_SECONDS = 30.0
SPECIFICATION = f"""
[job]
name = "planted"
task = "regression"
[roster]
label = "{LABEL}"
features = ["{FEATURE}"]
[data.{LABEL}]
dataset = "planted"
columns = ["e0"]
label = "y"
[data.{FEATURE}]
dataset = "planted"
columns = ["{COLUMN}", "x1", "x2"]
[train]
epochs = 2
batch_rows = 64
[encryption]
scheme = "none"
"""


@dataclass
class Recorded:
    """Two servers after their job, and what passed between them."""

    parties: dict[str, Any]
    lines: dict[str, RecordingLine]
    """By the party behind."""

    @property
    def captured(self) -> bytes:
        return b"".join(line.captured for line in self.lines.values())


def write_tables(label: Path, feature: Path) -> None:
    """In two neighbouring rows and, for the feature party, two neighbouring columns stands the same planted value."""
    draws = np.random.default_rng(0).normal(size=(ROWS, 22))
    draws[100:102, :2] = FEATURE_VALUE
    amounts = draws[:, 0] - draws[:, 20]
    amounts[100:102] = LABEL_VALUE
    names = [COLUMN, *(f"x{i}" for i in range(1, 20))]
    columns = {label: ["e0", "y"], feature: names}
    values = {label: np.column_stack([draws[:, 20], amounts]), feature: draws[:, :20]}
    for path, header in columns.items():
        lines = [",".join(["id", *header])]
        lines += [f"{IDS}{row:04}," + ",".join(map(repr, map(float, values[path][row]))) for row in range(ROWS)]
        path.write_text("\n".join(lines) + "\n")


@contextmanager
def joined(
    root: Path, new_party: Callable[..., Any], ports: list[int], alter: Callable[[bytes], bytes] = bytes
) -> Iterator[Recorded]:
    """Two running servers that call each other through lines; `ports` are six."""
    proxies = {LABEL: ports[0], FEATURE: ports[1]}
    own = {LABEL: ports[2:4], FEATURE: ports[4:6]}
    with ExitStack() as stack:
        parties = {}
        for party, peer in ((LABEL, FEATURE), (FEATURE, LABEL)):
            peers = {peer: f"https://127.0.0.1:{proxies[peer]}"}
            parties[party] = new_party(root / party, party, peers, {"planted": "planted.csv"}, own[party])
        write_tables(*(parties[party].folder / "planted.csv" for party in (LABEL, FEATURE)))
        lines = {party: RecordingLine(proxies[party], own[party][1], alter) for party in parties}
        for line in lines.values():
            stack.callback(line.close)
        for server in parties.values():
            stack.callback(server.close)
            server.start()
        parties[LABEL].granting = [parties[FEATURE]]
        yield Recorded(parties, lines)


def train(parties: dict[str, Any]) -> None:
    job = parties[LABEL].submit(SPECIFICATION)["id"]
    ended = [server.over(job) for server in parties.values()]
    assert [each["state"] for each in ended] == ["done", "done"], ended


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory,
    new_party: Callable[..., Any],
    some_ports: Callable[[int], list[int]],
) -> Iterator[Recorded]:
    with joined(tmp_path_factory.mktemp("recorded"), new_party, some_ports(6)) as two:
        train(two.parties)
        for server in two.parties.values():
            server.stop()  # what it keeps in memory is on disk now
        yield two


def spellings(value: bytes) -> set[bytes]:
    """These bytes in hex and in base64, wherever in a longer text they begin."""
    found = {value, value.hex().encode(), value.hex().upper().encode()}
    for before in range(3):
        whole = base64.b64encode(bytes(before) + value + bytes(-(before + len(value)) % 3))
        inner = whole[-(-before * 8 // 6) : len(whole) - (4 if (before + len(value)) % 3 else 0)]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def of_number(value: float) -> set[bytes]:
    """As text, and as numbers of both widths and byte orders. A float32 alone would be found by chance in a long
    recording; two neighbours are looked for."""
    numbers = [struct.pack(f"{order}d", value) for order in "<>"] + [
        struct.pack(f"{order}2f", *[value] * 2) for order in "<>"
    ]
    texts = [repr(value).encode(), f"{value:.9f}".encode()]
    return {spelling for each in (*numbers, *texts) for spelling in spellings(each)}


def of_key(party: str) -> set[bytes]:
    return spellings(identity_of(party).private.private_bytes_raw())


PLANTED = {
    "a feature": (FEATURE, of_number(FEATURE_VALUE)),
    "a label": (LABEL, of_number(LABEL_VALUE)),
    "an id": ("", spellings(f"{IDS}0100".encode())),
    "the label party's key": (LABEL, of_key(LABEL)),
    "the feature party's key": (FEATURE, of_key(FEATURE)),
    "the name of a column": ("", spellings(COLUMN.encode())),
}
"""Who owns it, if one party alone does; how it may be written."""


def holding(folder: Path, planted: set[bytes]) -> set[str]:
    """The files below a folder in which one of these stands."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)) for path in files if any(each in path.read_bytes() for each in planted)}


def test_the_search_finds_what_stands_there(recorded: Recorded) -> None:
    for name in ("a feature", "a label", "an id"):
        owner, planted = PLANTED[name]
        assert holding(recorded.parties[owner or LABEL].folder, planted) == {"planted.csv"}, name
    proposal = b"\x93" + COLUMN.encode() + base64.b64encode(b"xx" + struct.pack("<d", FEATURE_VALUE) + b"x")
    assert any(each in proposal for each in PLANTED["the name of a column"][1])
    assert any(each in proposal for each in PLANTED["a feature"][1])


def test_an_envelope_itself_hides_nothing() -> None:
    """Without TLS the same search would find what the proposal says."""
    proposal = Label("https://127.0.0.1:9", SPECIFICATION).proposal().as_sent()
    assert any(each in proposal for each in PLANTED["the name of a column"][1])


def test_only_tls_1_3_is_on_the_line(recorded: Recorded) -> None:
    seen = [each for line in recorded.lines.values() for each in line.recordings if each.called]
    assert all(line.recordings for line in recorded.lines.values())
    for recording in seen:
        for stream, hello in ((recording.called, CLIENT_HELLO), (recording.answered, SERVER_HELLO)):
            first, *others = records(bytes(stream))
            kind, extensions = hello_extensions(first)
            assert (first.kind, kind) == (HANDSHAKE, hello)
            versions = extensions[SUPPORTED_VERSIONS]
            assert versions == (bytes([2]) + TLS_13 if hello == CLIENT_HELLO else TLS_13)
            assert EARLY_DATA not in extensions
            assert {record.kind for record in others} <= {APPLICATION_DATA, CHANGE_CIPHER_SPEC}
            assert {record.version for record in others} == {b"\x03\x03"}


def test_what_was_trained_on_has_passed_there(recorded: Recorded) -> None:
    """300 rows of three columns, twice, in float32 at least: the recording is not of an idle line."""
    assert len(recorded.captured) > 2 * 4 * 3 * ROWS


@pytest.mark.parametrize("name", PLANTED)
def test_nothing_that_was_planted_can_be_read_on_the_line(recorded: Recorded, name: str) -> None:
    captured = recorded.captured
    assert not [each for each in PLANTED[name][1] if each in captured]


@pytest.mark.parametrize("name", [name for name, (owner, _) in PLANTED.items() if owner])
def test_what_one_party_alone_holds_is_in_no_file_of_the_other(recorded: Recorded, name: str) -> None:
    owner, planted = PLANTED[name]
    other = FEATURE if owner == LABEL else LABEL
    assert not holding(recorded.parties[other].folder, planted)


@pytest.mark.parametrize("name", [name for name in PLANTED if name != "the name of a column"])
def test_no_row_and_no_key_is_in_a_log_a_database_or_a_model(recorded: Recorded, name: str) -> None:
    """Not even in the owner's own: rows stand in its table alone, and its key is encrypted."""
    for server in recorded.parties.values():
        assert holding(server.folder, PLANTED[name][1]) <= {"planted.csv"}


# Who stands on the line and does more than listen


def test_a_changed_bit_costs_a_connection_and_has_no_other_effect(
    tmp_path: Path, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]]
) -> None:
    changed: list[int] = []

    def alter(piece: bytes) -> bytes:
        """One bit of some pieces of those that carry rows."""
        if len(piece) < LONG_PIECE or len(changed) == CHANGED_BITS:
            return piece
        changed.append(len(piece))
        middle = len(piece) // 2
        return piece[:middle] + bytes([piece[middle] ^ 1]) + piece[middle + 1 :]

    with joined(tmp_path, new_party, some_ports(6), alter) as two:
        train(two.parties)
    assert len(changed) == CHANGED_BITS
    logs = [(server.folder / "server.log").read_text() for server in two.parties.values()]
    assert not any("tampered_body" in log or "unknown_sender" in log for log in logs)  # TLS has found it before


def test_a_server_with_another_key_in_the_place_of_a_peer_is_told_nothing(
    tmp_path: Path, new_party: Callable[..., Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(BOUND_SECONDS)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        label = new_party(tmp_path / LABEL, LABEL, {FEATURE: url}, {}).start()
        try:
            with ThreadPoolExecutor() as threads:
                answer = threads.submit(label.call, "POST", f"/v1/peers/{FEATURE}/check")
                caller, _ = listener.accept()
                with caller, pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                    tls_at("nobody", LABEL).wrap_socket(caller, server_side=True)
                listener.close()
                assert answer.result(BOUND_SECONDS).json()["code"] == "peer_unreachable"
        finally:
            label.close()
