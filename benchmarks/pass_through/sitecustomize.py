"""Turns trust off in the servers of benchmarks/trust.py: Python imports this file in every process it starts.

The product has no such switch. Envelopes and receipts are signed with zeros and nothing is verified, the peer port
speaks HTTP in clear, and nothing is written to the audit log or spent from a budget.
"""

import sys
from typing import Any


def _turn_trust_off() -> None:
    import httpcore

    import api.ports
    import api.server
    from parties.enrolment import Enrolment
    from parties.peers import Peers
    from parties.storage.audit_log import AuditLog
    from parties.storage.ledger import Ledger
    from parties.trust.identity import Identity, IdentityKey

    stream, serving = httpcore.ConnectionPool.stream, api.ports.port_server

    def in_clear(self: Any, method: str, url: str, **options: Any) -> Any:
        return stream(self, method, url.replace("https:", "http:", 1), **options)

    def without_context(port: str, app: Any, *_tls: Any) -> Any:
        return serving(port, app)

    def nothing(*_arguments: Any, **_options: Any) -> None:
        return None

    patched: list[tuple[Any, str, Any]] = [
        (httpcore.ConnectionPool, "stream", in_clear),
        (api.server, "port_server", without_context),
        (Peers, "issued_by", lambda self, _issuer: next((peer for peer in self.all() if peer.is_trusted), None)),
        (Enrolment, "guest", lambda self, _issuer: next(iter(self.open_invitations()), None)),
        (Identity, "sign", lambda *_: bytes(64)),
        (IdentityKey, "verifies", lambda *_: True),
        (Ledger, "_append", nothing),
        (Ledger, "acknowledged", nothing),
        (Ledger, "_spend", nothing),
        (AuditLog, "append", nothing),
    ]
    for owner, name, instead in patched:
        getattr(owner, name)  # raises where the product has changed
        setattr(owner, name, instead)


if "api.cli.demo_server" in sys.orig_argv:
    _turn_trust_off()
