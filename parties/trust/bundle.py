"""An audit bundle: the folder that a party hands to an auditor or a peer (docs/protocols/audit_log.md).

Made of plain data, and read by `verifier.py` alone, of which each bundle carries a copy.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from parties.trust.contract import Contract
from parties.trust.log_keys import cosigning_key, export_key
from parties.trust.merkle import leaf_hash
from parties.trust.notes import Note, Sign, VerifierKey

MANIFEST = "manifest"
MANIFEST_HEADER = "vfl-audit-bundle/v1"

README = """AUDIT BUNDLE of {party}

This folder holds what the party {party} logged: what it sent to its peers, what it received from them, and what it
decided. It holds no value of any table.

To check it you need Python 3.11 and the Python package "cryptography":

    python verifier.py THIS_FOLDER                  this bundle alone
    python verifier.py THIS_FOLDER PEERS_FOLDER     this bundle against the bundle of a peer, which shows more

Export both bundles while no job runs. Better take verifier.py from a source that you trust, not from this folder. Ask
each party for its identity key on another way than this folder and name it with --key NAME=BASE64; the key that this
folder names is {identity}.

The last line of the output says what was verified and what is not proven.
"""


@dataclass(frozen=True, slots=True)
class PartyKeys:
    """Public keys of a party, raw (32 bytes each)."""

    party: str
    identity: bytes
    cosigning: bytes
    earlier: tuple[bytes, ...] = ()
    """Identity keys that it had before; older envelopes are signed by them."""
    earlier_cosigning: tuple[bytes, ...] = ()

    def as_json(self) -> dict[str, str | list[str]]:
        return {
            "identity": _to_base64(self.identity),
            "earlier": [_to_base64(key) for key in self.earlier],
            "cosigner": str(cosigning_key(self.party, self.cosigning)),
            "earlier_cosigners": [str(cosigning_key(self.party, key)) for key in self.earlier_cosigning],
        }


class SignedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A peer's statement of how far it has come with what this party sent it, in one attempt of a job."""

    receiver: str
    job: str
    attempt: int
    next: int
    """The number that is due next."""
    last: bytes
    """Digest of the last header that was received."""
    signature: bytes

    def signed_message(self, sender: str) -> bytes:
        """What the receiver signs, behind the domain of receipts."""
        return _ENCODER.encode([self.receiver, sender, self.job, self.attempt, self.next, self.last])

    def as_json(self) -> dict[str, str | int]:
        fields: dict[str, str | int] = msgspec.structs.asdict(self)
        return fields | {"last": self.last.hex(), "signature": _to_base64(self.signature)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContent:
    me: PartyKeys
    peers: Sequence[PartyKeys]
    """Also those that were removed since: the log names them."""
    witnesses: Sequence[VerifierKey] = ()
    """Others who cosign the log."""
    leaves: Sequence[bytes]
    checkpoint: Note
    """The newest head, of all leaves, with its cosignatures."""
    earlier: Sequence[Note] = ()
    """Heads that were cosigned before, in the order of their sizes."""
    cosigned: Sequence[Note] = ()
    """The newest head of each peer's log that this party has cosigned, with that cosignature."""
    receipts: Sequence[SignedReceipt] = ()
    contracts: Mapping[str, Contract] = field(default_factory=dict)
    """By job."""
    manifests: Mapping[str, bytes] = field(default_factory=dict)
    """Of the models, by job, as they lie on this party's disk."""


def bundle_files(content: BundleContent, sign: Sign) -> dict[str, bytes]:
    """The files of a bundle by name; `sign` is by the identity key."""
    me = content.me
    peers = {peer.party: peer.as_json() for peer in content.peers}
    witnesses = [str(key) for key in content.witnesses]
    files = {
        "party.json": _json({"party": me.party, **me.as_json(), "peers": peers, "witnesses": witnesses}),
        "leaves.bin": b"".join(len(leaf).to_bytes(4, "big") + leaf for leaf in content.leaves),
        "hashes.bin": b"".join(map(leaf_hash, content.leaves)),
        "checkpoint": str(content.checkpoint).encode(),
        "checkpoints": "\n".join(map(str, content.earlier)).encode(),
        "cosigned": "\n".join(map(str, content.cosigned)).encode(),
        "receipts.json": _json([receipt.as_json() for receipt in content.receipts]),
        **{f"contracts/{job}.specification": contract.spec for job, contract in content.contracts.items()},
        **{f"contracts/{job}.signatures": _signatures(contract) for job, contract in content.contracts.items()},
        **{f"models/{job}.json": manifest for job, manifest in content.manifests.items()},
    }
    files[MANIFEST] = str(_manifest(me, files, sign)).encode()
    files["README.txt"] = README.format(party=me.party, identity=_to_base64(me.identity)).encode()
    files["verifier.py"] = Path(__file__).with_name("verifier.py").read_bytes()
    return files


def write_bundle(folder: Path, files: Mapping[str, bytes]) -> None:
    """Into a folder that does not exist yet. Raises OSError."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _manifest(me: PartyKeys, files: Mapping[str, bytes], sign: Sign) -> Note:
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}" for name in sorted(files)]
    text = "".join(f"{line}\n" for line in (MANIFEST_HEADER, me.party, *lines))
    return Note(text).signed(export_key(me.party, me.identity).sign(text, sign))


def _signatures(contract: Contract) -> bytes:
    """Of each party its identity key and what it has signed with it."""
    signed = sorted(contract.signed.items())
    return _json({party: [_to_base64(each.key), _to_base64(each.signature)] for party, each in signed})


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


_ENCODER = msgspec.msgpack.Encoder()
