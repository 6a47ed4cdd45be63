"""Secure sums: what both sides agree on, and each side of one sum; the flow is `vfl.protocols.secure_sum`."""
