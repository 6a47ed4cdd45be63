"""What somebody may change in an exported bundle: without any key, or with all keys of the party that exported it."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
from audited_parties import ENVELOPE_DOMAIN, AuditedParty

from parties.trust.bundle import write_bundle
from parties.trust.contract import Contract, sign
from parties.trust.identity import Identity
from parties.trust.leaves import Event, Leaf, decode, encode
from parties.trust.merkle import leaf_hash
from parties.trust.verifier import Problem, check_all, pieces

UNCHECKED = {"README.txt", "verifier.py"}
Leaves = list[bytes]


class Edit(NamedTuple):
    name: str
    files: dict[str, bytes]
    first_bad_leaf: int | None
    """Where the bundle itself shows it."""


def other_leaf(leaf: bytes, random: Random) -> bytes:
    """A leaf that could stand in a log, in place of this one."""
    read = decode(leaf)
    if random.random() < 0.5 or read.header:
        return encode(msgspec.structs.replace(read, time_ms=read.time_ms + random.randint(1, 1000)))
    return encode(msgspec.structs.replace(read, detail={"values": random.randint(0, 10_000)}))


def edit(leaves: Leaves, random: Random) -> Leaves:
    at = random.randrange(len(leaves))
    return [*leaves[:at], other_leaf(leaves[at], random), *leaves[at + 1 :]]


def edit_bits(leaves: Leaves, random: Random) -> Leaves:
    at = random.randrange(len(leaves))
    return [*leaves[:at], flip(leaves[at], random), *leaves[at + 1 :]]


def delete(leaves: Leaves, random: Random) -> Leaves:
    at = random.randrange(len(leaves))
    return leaves[:at] + leaves[at + 1 :]


def insert(leaves: Leaves, random: Random) -> Leaves:
    at = random.randrange(len(leaves) + 1)
    new = random.choice(leaves) if random.random() < 0.5 else encode(Leaf(time_ms=1, event=Event.EXPORTED))
    return [*leaves[:at], new, *leaves[at:]]


def reorder(leaves: Leaves, random: Random) -> Leaves:
    one, other = sorted(random.sample(range(len(leaves)), 2))
    return [*leaves[:one], leaves[other], *leaves[one + 1 : other], leaves[one], *leaves[other + 1 :]]


def truncate(leaves: Leaves, random: Random) -> Leaves:
    return leaves[: random.randrange(len(leaves))]


def fork(leaves: Leaves, random: Random) -> Leaves:
    at = random.randrange(len(leaves))
    return leaves[:at] + [other_leaf(leaf, random) for leaf in leaves[at:]]


LEAF_EDITS: tuple[Callable[[Leaves, Random], Leaves], ...] = (
    edit,
    edit_bits,
    delete,
    insert,
    reorder,
    truncate,
    fork,
)


def flip(data: bytes, random: Random) -> bytes:
    """One bit."""
    changed = bytearray(data)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def tampered(party: AuditedParty, files: dict[str, bytes], random: Random) -> Edit:
    """By one who has the bundle and no key."""
    kind = random.randrange(len(LEAF_EDITS) + 3)
    if kind < len(LEAF_EDITS):
        leaves = list(party.leaves)
        while leaves == party.leaves:
            leaves = LEAF_EDITS[kind](leaves, random)
        changed = {"leaves.bin": framed(leaves)}
        if with_hashes := random.random() < 0.3:
            changed["hashes.bin"] = b"".join(map(leaf_hash, leaves))
        where = None if with_hashes else first_difference(party.leaves, leaves)
        return Edit(LEAF_EDITS[kind].__name__, files | changed, where)
    if kind == len(LEAF_EDITS):
        older = [head for head in party.heads if head.text != party.head().text]
        return Edit("swapped head", files | {"checkpoint": str(random.choice(older)).encode()}, None)
    name = random.choice(sorted(name for name in files if files[name] and name not in UNCHECKED))
    changed_file = flip(files[name], random)
    where = None
    if name == "leaves.bin":
        where = first_difference(party.leaves, list(pieces(changed_file)))
    return Edit(f"a bit of {name}", files | {name: changed_file}, where)


def rewritten(party: AuditedParty, random: Random) -> Edit:
    """By the party itself, which signs everything anew; a peer has cosigned the leaves that are changed."""
    change = random.choice((*LEAF_EDITS, None))
    if random.random() < 0.25:
        name, changed = random.choice([other_specification, other_signature, other_manifest])(party, random)
        return Edit(f"{name}, signed anew", party.export(**changed), None)
    leaves = list(party.leaves)
    while leaves[: len(party.leaves)] == party.leaves:  # to append is what a log may do
        leaves = change(leaves, random) if change else resigned(party, random)
    again = party.with_leaves(leaves)
    again.heads = party.heads if random.random() < 0.3 else []
    return Edit(f"{change.__name__ if change else 'another envelope'}, signed anew", again.export(), None)


Changed = tuple[str, dict[str, Any]]
"""What it is called, and what of the bundle is another."""


def other_specification(party: AuditedParty, random: Random) -> Changed:
    """That the party itself has signed."""
    job, contract = random.choice(list(party.contracts.items()))
    spec = flip(contract.spec, random)
    own = sign(Identity(party.name, party.identity), job, hashlib.sha256(spec).digest())
    return "another specification", {"contracts": {job: Contract(spec, contract.signed | {party.name: own})}}


def other_signature(party: AuditedParty, random: Random) -> Changed:
    """Of one who has not signed, or with another key."""
    job, contract = random.choice(list(party.contracts.items()))
    name = random.choice(list(contract.signed))
    signed = {other: each for other, each in contract.signed.items() if other != name}
    if random.random() < 0.5:
        signed[name] = sign(Identity.generate(name), job, hashlib.sha256(contract.spec).digest())
    return "another signature of a contract", {"contracts": {job: Contract(contract.spec, signed)}}


def other_manifest(party: AuditedParty, random: Random) -> Changed:
    job, manifest = random.choice(list(party.manifests.items()))
    return "another manifest of a model", {"manifests": {job: flip(manifest, random)}}


def resigned(party: AuditedParty, random: Random) -> Leaves:
    """Another envelope was sent, and all that follow in its lane name it."""
    sent = [at for at, leaf in enumerate(party.leaves) if decode(leaf).event is Event.SENT]
    changed, digests, leaves = random.choice(sent), dict[bytes, bytes](), list(party.leaves)
    for at in sent:
        leaf = decode(leaves[at])
        header = msgspec.msgpack.decode(leaf.header)
        old = hashlib.sha256(leaf.header).digest()
        header["previous"] = digests.get(header["previous"], header["previous"])
        header["body_bytes"] += at == changed
        encoded = msgspec.msgpack.encode(header)
        digests[old] = hashlib.sha256(encoded).digest()
        signature = party.identity.sign(ENVELOPE_DOMAIN + encoded)
        leaves[at] = encode(msgspec.structs.replace(leaf, header=encoded, signature=signature))
    return leaves


def framed(leaves: Sequence[bytes]) -> bytes:
    return b"".join(len(leaf).to_bytes(4, "big") + leaf for leaf in leaves)


def first_difference(old: Leaves, new: Leaves) -> int:
    pairs = enumerate(zip(old, new, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(old), len(new)))


def problems_of(folder: Path, *bundles: dict[str, bytes]) -> list[Problem]:
    shutil.rmtree(folder, ignore_errors=True)
    for number, files in enumerate(bundles):
        write_bundle(folder / str(number), files)
    return check_all([folder / str(number) for number in range(len(bundles))], {})[1]


def texts(folder: Path, *bundles: dict[str, bytes]) -> str:
    return "\n".join(map(str, problems_of(folder / "bundles", *bundles)))
