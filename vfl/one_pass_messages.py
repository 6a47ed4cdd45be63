"""Every message of a linear model from sums over all rows, and what its receiver can read of it (one_pass.md)."""

from vfl.message import Grain, Message, Reveals

HIDDEN = "ring-LWE at 128 bits, polynomials shared by the columns of a block"


class SumsKey(Message, frozen=True, tag=True):
    """The label party's public key: a seed, from which every shared polynomial follows, and encryptions of zero."""

    reveals = Reveals("nothing", Grain.NOTHING, HIDDEN)
    public: bytes


class EncryptedBlocks(Message, frozen=True, tag=True):
    """Some blocks of rows: the label party's own columns and targets, each row one word for each of them."""

    reveals = Reveals("nothing", Grain.NOTHING, HIDDEN)
    step: int
    blocks: tuple[bytes, ...]


class SumsOverRows(Message, frozen=True, tag=True):
    """The sums over the rows of one fold: with the label party's columns encrypted, of the feature party's own in
    clear."""

    reveals = Reveals(
        "for each fold of the training rows the sums over it: of each of its columns, of each product of two of them, "
        "and of each of them times each own column and target",
        Grain.SUM,
        "rows of a fold, floor of rows for each bin and category, rho; fresh Enc(0), wide noise",
    )
    step: int
    """The fold, from 1."""
    polynomials: bytes
    words: bytes
    own: bytes
    """int64: the products of two own columns, the last of them the constant, those on and above the diagonal."""
