"""The names under which a party signs notes: the heads of its log, a peer's heads, and what it exports."""

from parties.trust.notes import SignatureType, VerifierKey


def log_key(party: str, identity: bytes) -> VerifierKey:
    """Signs the heads of the party's log; its name is the origin of the log."""
    return VerifierKey(origin(party), SignatureType.ED25519, identity)


def origin(party: str) -> str:
    return f"{party}/audit-log"


def cosigning_key(party: str, public: bytes) -> VerifierKey:
    """Signs the heads of peers' logs, and nothing else."""
    return VerifierKey(f"{party}/cosigner", SignatureType.COSIGNATURE, public)


def export_key(party: str, identity: bytes) -> VerifierKey:
    """Signs the manifest of a bundle."""
    return VerifierKey(f"{party}/audit-bundle", SignatureType.ED25519, identity)


def half_key(party: str, identity: bytes) -> VerifierKey:
    """Signs a half of a model that is exported."""
    return VerifierKey(f"{party}/model-half", SignatureType.ED25519, identity)
