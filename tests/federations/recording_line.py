"""A line between two real servers that has no key: it carries bytes both ways, keeps a copy of all of them, and may
change some."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

BOUND_SECONDS = 60.0
HANDSHAKE, APPLICATION_DATA, CHANGE_CIPHER_SPEC = 22, 23, 20
CLIENT_HELLO, SERVER_HELLO = 1, 2
SUPPORTED_VERSIONS, EARLY_DATA = 43, 42


class Record(NamedTuple):
    """Of TLS (RFC 8446, 5.1)."""

    kind: int
    version: bytes
    body: bytes


@dataclass
class Recording:
    """One connection."""

    called: bytearray = field(default_factory=bytearray)
    """What the end that opened the connection said."""
    answered: bytearray = field(default_factory=bytearray)


class RecordingLine:
    """Listens on one port for what stands behind another."""

    def __init__(self, port: int, behind: int, alter: Callable[[bytes], bytes] = bytes) -> None:
        """`alter` answers what is carried on in place of a piece that the calling end said."""
        self.recordings: list[Recording] = []
        self._alter = alter
        self._behind = behind
        self._listener = socket.create_server(("127.0.0.1", port))
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def captured(self) -> bytes:
        return b"".join(bytes(each.called) + bytes(each.answered) for each in self.recordings)

    def close(self) -> None:
        for end in (self._listener, *self._ends):
            end.close()

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._behind), BOUND_SECONDS)
            except OSError:  # not there yet
                caller.close()
                continue
            server.settimeout(None)
            recording = Recording()
            self.recordings.append(recording)
            self._ends += [caller, server]
            called, answered = (caller, server, recording.called), (server, caller, recording.answered)
            for way, alter in ((called, self._alter), (answered, bytes)):
                threading.Thread(target=_carry, args=(*way, alter), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket, kept: bytearray, alter: Callable[[bytes], bytes]) -> None:
    try:
        while piece := source.recv(1 << 16):
            kept += piece
            target.sendall(alter(piece))
        target.shutdown(socket.SHUT_WR)
    except OSError:
        target.close()


def records(stream: bytes) -> list[Record]:
    """A stream as TLS records; raises ValueError where it is none. The last one may be cut off."""
    found = []
    while len(stream) >= 5:
        length = int.from_bytes(stream[3:5], "big")
        if length > (1 << 14) + 256:
            raise ValueError(f"no TLS record: {stream[:5].hex()}")
        found.append(Record(stream[0], stream[1:3], stream[5 : 5 + length]))
        stream = stream[5 + length :]
    return found


def hello_extensions(record: Record) -> tuple[int, dict[int, bytes]]:
    """(which hello it is, its extensions) (RFC 8446, 4.1.2 and 4.1.3)."""
    kind, at = record.body[0], 4 + 2 + 32
    at += 1 + record.body[at]  # session id
    if kind == CLIENT_HELLO:
        at += 2 + int.from_bytes(record.body[at : at + 2], "big")  # cipher suites
        at += 1 + record.body[at]  # compression methods
    else:
        at += 3
    end = at + 2 + int.from_bytes(record.body[at : at + 2], "big")
    at += 2
    found = {}
    while at < end:
        length = int.from_bytes(record.body[at + 2 : at + 4], "big")
        found[int.from_bytes(record.body[at : at + 2], "big")] = record.body[at + 4 : at + 4 + length]
        at += 4 + length
    return kind, found
