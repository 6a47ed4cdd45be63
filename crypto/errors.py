"""What the cryptographic layer raises. A refusal names the rule, never the data."""


class CryptoError(Exception):
    """Base of the errors below."""


class InvalidCiphertext(CryptoError):
    """Bytes from a peer are not what an honest sender could have sent."""


class OutOfRange(CryptoError):
    """A value does not fit the agreed parameters."""


class KeyUsedUp(CryptoError):
    """A key has opened as many values as its preset allows."""
