"""What the cryptographic layer raises. A refusal names the rule, never the data."""


class CryptoError(Exception):
    """Base of the errors below."""


class InvalidCiphertext(CryptoError):
    """Bytes from a peer are not what an honest sender could have sent."""


class OutOfRange(CryptoError):
    """A value does not fit the agreed parameters."""


class KeyUsedUp(CryptoError):
    """A key has opened as many values as its preset allows."""


class InvalidKey(CryptoError):
    """A public key is not one: wrong length, a point of small order, or the same as another's."""


class InvalidShare(CryptoError):
    """A share of a secret is not one, or shares do not belong together."""


class InvalidBox(CryptoError):
    """A sealed box was made for another sender, receiver or purpose, or it was changed on its way."""


class InvalidPoint(CryptoError):
    """Points from a peer are not what an honest sender could have sent."""
