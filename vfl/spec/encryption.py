"""What protects the features in a training: the section [encryption], one type for each scheme."""

from typing import ClassVar, Literal

from crypto.paillier_parameters import (
    FEWEST_FRACTION_BITS,
    FRACTION_BITS,
    KEY_BITS,
    LARGEST_KEY_BITS,
    MOST_FRACTION_BITS,
    SMALLEST_KEY_BITS,
)
from vfl.spec.sections import Section, require


class NoEncryption(Section, frozen=True, kw_only=True, tag_field="scheme", tag="none"):
    """Training in clear, with the polynomials of an encrypted one: what that is compared with."""

    scheme: ClassVar[str] = "none"
    loss_error: Literal["linear", "cubic"] = "linear"
    """Error of the logistic loss: u/4 + 1/2 - y, or its cubic approximation on |u| <= 8. Regression uses u - y."""

    def check(self) -> None:
        """Nothing here contradicts itself."""


class CkksEncryption(Section, frozen=True, kw_only=True, tag_field="scheme", tag="ckks"):
    """Training on CKKS ciphertexts under the feature party's keys; the scheme of a job that names none."""

    scheme: ClassVar[str] = "ckks"
    preset: str = "auto"
    """Resolved from (top model, loss error) before the proposal is sent."""
    loss_error: Literal["linear", "cubic"] = "linear"
    """As of a training in clear."""
    labels: Literal["clear", "ciphertext"] = "clear"
    """Subtracted at the label party in clear, or encrypted there first under the feature party's key; same result."""
    values_per_key: int = 0
    """Values opened under one key; 0 takes the preset's cap, which holds against a label party that deviates."""

    def check(self) -> None:
        """Raises SpecError."""
        require(self.values_per_key >= 0, "encryption.values_per_key must not be negative")


class PaillierEncryption(Section, frozen=True, kw_only=True, tag_field="scheme", tag="paillier"):
    """Training on Paillier ciphertexts under the feature party's key: exact integers, and a classical assumption."""

    scheme: ClassVar[str] = "paillier"
    loss_error: ClassVar[Literal["linear"]] = "linear"
    """Errors are linear in the feature party's columns: u/4 + 1/2 - y, and u - y for regression."""
    key_bits: int = KEY_BITS
    fraction_bits: int = FRACTION_BITS
    """Of every number behind the point."""

    def check(self) -> None:
        """Raises SpecError."""
        bits, fraction_bits = self.key_bits, self.fraction_bits
        require(
            SMALLEST_KEY_BITS <= bits <= LARGEST_KEY_BITS and bits % 128 == 0,
            f"encryption.key_bits must be a multiple of 128 between {SMALLEST_KEY_BITS} and {LARGEST_KEY_BITS}",
        )
        require(
            FEWEST_FRACTION_BITS <= fraction_bits <= MOST_FRACTION_BITS,
            f"encryption.fraction_bits must lie between {FEWEST_FRACTION_BITS} and {MOST_FRACTION_BITS}",
        )
