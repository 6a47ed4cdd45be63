"""Every message of a training on Paillier ciphertexts, and what its receiver can read of it (paillier_training.md)."""

from vfl.message import Grain, Message, Reveals

HIDDEN = "decisional composite residuosity"


class PaillierKey(Message, frozen=True, tag=True):
    """The feature party's public key, and the proof that its modulus is well formed."""

    reveals = Reveals("nothing", Grain.NOTHING, "factoring")
    modulus: bytes
    proof: bytes


class EncryptedRows(Message, frozen=True, tag=True):
    """The rows of a batch of the first epoch, several coordinates in one ciphertext; later epochs use them again."""

    reveals = Reveals("nothing", Grain.NOTHING, HIDDEN)
    step: int
    rows: bytes


class EncryptedMoments(Message, frozen=True, tag=True):
    """Second moments of the rows of a batch: the sums over it of column x column."""

    reveals = Reveals("nothing", Grain.NOTHING, HIDDEN)
    step: int
    moments: bytes


class MaskedNumbers(Message, frozen=True, tag=True):
    """What is to be opened, gradient sums or scores, each under a mask uniform modulo n, re-randomised."""

    reveals = Reveals("nothing: uniform numbers", Grain.NOTHING, "one-time mask modulo n, fresh r^n")
    step: int
    masked: bytes


class OpenedSums(Message, frozen=True, tag=True):
    """The gradient sums of one step, decrypted, still under the label party's masks."""

    reveals = Reveals(
        "exact sums over the batch of row error x feature: the gradient of its own weights",
        Grain.SUM,
        "smallest batch, rho; no noise",
    )
    step: int
    values: bytes


class EncryptedColumns(Message, frozen=True, tag=True):
    """A block of rows to be scored, several rows in one ciphertext for each coordinate."""

    reveals = Reveals("nothing", Grain.NOTHING, HIDDEN)
    step: int
    columns: bytes


class BlurredScores(Message, frozen=True, tag=True):
    """Their scores, decrypted, still under the label party's masks, with random low bits."""

    reveals = Reveals("scores of held-out rows, to about 12 bits behind the point", Grain.ROW, "random low bits")
    step: int
    values: bytes
