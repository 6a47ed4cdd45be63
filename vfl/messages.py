"""Every message that may leave a party while it learns, and what its receiver can read out of it.

This file and `routes.py` are the privacy surface: whoever reads both knows all that can ever cross, to whom, and what
it tells. Those of alignments stand in `alignment_messages.py`, those of trainings on Paillier ciphertexts in
`paillier_messages.py`, those of sums over all rows in `one_pass_messages.py`, and a job kind in one file may hold
messages and routes of its own. What a message is stands in `message.py`.
"""

from collections.abc import Iterator
from typing import Self

import msgspec

from vfl.message import Grain, HandedOn, Message, Reveals, Source


class RowsDigest(Message, frozen=True, tag=True):
    """Both ways, before anything else: do both sides hold the same rows in the same order?"""

    reveals = Reveals(
        "the number of rows, and whether ids and order are equal",
        Grain.TABLE,
        "SHA-256 keyed with the joint seed; whoever holds a guess of all ids can test it",
        Source.NO_COLUMN,
    )
    rows: int
    digest: bytes


class HeldOut(Message, frozen=True, tag=True):
    """Only where the label party says which rows are held out (`split.stratify`, or `split.by` hash or time): one bit
    for each row, set where it is held out, the first row in the lowest bit. By hash or time the same follows of the
    validation rows, where the job has some."""

    reveals = Reveals(
        "which rows are held out, or for validation. By class: hardly anything of one label, but who knows all labels "
        "but one can learn that one. By time: which rows are the newest. By hash: nothing of any column",
        Grain.ROW,
        "by class drawn from the label party's private seed",
        Source.LABEL,
    )
    rows: bytes


class Embedding(Message, frozen=True, tag=True):
    """Clear training: one batch of the feature party's embeddings, float64, rows x columns."""

    reveals = Reveals("every embedding; in layout `features` the prepared columns themselves", Grain.ROW, "none")
    step: int
    values: bytes


class CutGradient(Message, frozen=True, tag=True):
    """Clear training, layout embeddings: derivative of the loss by each embedding, float64, rows x columns."""

    reveals = Reveals("label-bearing numbers for every row and step", Grain.ROW, "as protection.cut_noise says")
    step: int
    values: bytes


class StepApplied(Message, frozen=True, tag=True):
    """Clear training: the label party has used the batch; the next one may come."""

    reveals = Reveals("that the step is done", Grain.NOTHING)
    step: int


class EvaluationRows(Message, frozen=True, tag=True):
    """In clear: embeddings of the rows that are scored, float64, rows x columns."""

    reveals = Reveals("every embedding of held-out or new rows", Grain.ROW, "none")
    values: bytes


class PublicKeys(Message, frozen=True, tag=True):
    """A fresh key's public part; every part is one polynomial and a seed, the receiver expands the rest."""

    reveals = Reveals("nothing", Grain.NOTHING, "ring-LWE")
    public: bytes
    relinearise: bytes
    packing: bytes


class EncryptedEmbedding(Message, frozen=True, tag=True):
    """One ciphertext per embedding coordinate, rows in slots."""

    reveals = Reveals("nothing", Grain.NOTHING, "CKKS, ring-LWE at 128 bits")
    step: int
    columns: bytes


class MaskedGradient(Message, frozen=True, tag=True):
    """Gradient sums of one step: c1 of the packed ciphertexts and the wanted words of c0 under a uniform mask."""

    reveals = Reveals("nothing: pseudo-random words and uniform numbers", Grain.NOTHING, "one-time mask, fresh Enc(0)")
    step: int
    packed: bytes
    masked: bytes


class OpenedGradient(Message, frozen=True, tag=True):
    """The same numbers decrypted, still under the label party's mask, with noise added by the key owner."""

    reveals = Reveals(
        "noisy sums over the batch of row error x feature: the gradient of its own weights",
        Grain.SUM,
        "smallest batch, rho, Gaussian noise, cap of values per key",
    )
    step: int
    values: bytes


class OpenedLoss(Message, frozen=True, tag=True):
    """The same for the sums of squared errors over the validation rows, one for each output."""

    reveals = Reveals(
        "noisy sums of squared errors over the validation rows, one for each output",
        Grain.SUM,
        "rho, Gaussian noise, a key that opens nothing else",
    )
    step: int
    """The epoch, from 1."""
    values: bytes


class EpochJudged(Message, frozen=True, tag=True):
    """Only with train.stop_early: what the label party makes of the loss on validation rows."""

    reveals = Reveals(
        "whether the loss on validation rows has fallen, and whether training ends: who changes what it sends can try "
        "out single labels of these rows by it, one answer an epoch",
        Grain.TABLE,
        "none",
        Source.LABEL,
    )
    step: int
    """The epoch, from 1."""
    best: int
    """The epoch of the least loss so far, whose weights are kept."""
    goes_on: bool


class EncryptedError(Message, frozen=True, tag=True):
    """Layout embeddings: the cut error in an orthonormal basis of the first top layer's row space, and that basis."""

    reveals = Reveals(
        "label-bearing numbers for every row and step: labels can be inferred from them; with them the top model's "
        "gradient and the row space of its first layer",
        Grain.ROW,
        "as protection.cut_noise says",
    )
    step: int
    basis: bytes
    columns: bytes


class EncryptedWeights(Message, frozen=True, tag=True):
    """A top model's weights and the public key, both under a key of the label party. Of a model with hidden neurons:
    what products of two embedding coordinates are multiplied with."""

    reveals = Reveals("nothing", Grain.NOTHING, "CKKS, ring-LWE at 128 bits")
    public: bytes
    weights: bytes


class EncryptedSlopes(Message, frozen=True, tag=True):
    """A top model with hidden neurons: what each embedding coordinate of one block of rows is multiplied with, under
    the key of the weights. The label party's own columns of these rows are in it."""

    reveals = Reveals("nothing", Grain.NOTHING, "CKKS, ring-LWE at 128 bits")
    step: int
    slopes: bytes


class EncryptedScores(Message, frozen=True, tag=True):
    """Scores of one block of rows under the label party's key: whole second polynomials, and of the first ones a
    number for each row."""

    reveals = Reveals("noisy scores of held-out or new rows", Grain.ROW, "Gaussian noise, fresh Enc(0)")
    step: int
    polynomials: bytes
    coefficients: bytes


class RowsToScore(Message, frozen=True, tag=True):
    """A scoring session: which rows the label party wants scored now; int64, places in the agreed order, from 0."""

    reveals = Reveals(
        "which of the agreed rows are asked for, and when",
        Grain.ROW,
        "places in the agreed order and no ids; each row once",
        Source.NO_COLUMN,
    )
    step: int
    rows: bytes


class SessionOver(Message, frozen=True, tag=True):
    """A scoring session: the label party asks for no more rows."""

    reveals = Reveals("that the session is over", Grain.NOTHING)


class ClientReady(Message, frozen=True, tag=True):
    """Rounds: a client is there and waits for a task; sent first, and again when it has come back."""

    reveals = Reveals("that the client is there, and the digest of the backbone it holds", Grain.NOTHING)
    backbone_digest: bytes = b""


class ColumnScaling(Message, frozen=True, tag=True):
    """Rounds without an agreed input range: by what each column is standardised, before anything else to a client."""

    reveals = Reveals(
        "mean and deviation of each input column over the rows of all clients",
        Grain.TABLE,
        "the aggregator made them from secure sums: no client's own are read",
        Source.NO_COLUMN,
    )
    means: bytes
    """float64, one per column."""
    deviations: bytes


class RoundTask(Message, frozen=True, tag=True):
    """Rounds: the model of this round, to each client of its cohort."""

    reveals = Reveals("the shared model after every round it takes part in", Grain.MODEL, "none: all clients share it")
    round: int
    """From 1."""
    model_digest: bytes
    """SHA-256 of `parameters` as sent, 32 bytes."""
    parameters: bytes
    """A codec's body: the whole model, or the decoder where a backbone stays."""
    rate: float
    epochs: int
    reply_bits: int = 0
    """Bits per value of the reply, where the codec has them."""
    backbone: bytes = b""
    """Only to a client that does not hold it."""
    backbone_digest: bytes = b""


class RoundReply(Message, frozen=True, tag=True):
    """Rounds: what a client's training made of it. Rows stay where they are."""

    reveals = Reveals(
        "this client's trained parameters, its number of rows and its training loss: rows can be inferred from them",
        Grain.MODEL,
        "none: secure sums would show the cohort's sum only",
    )
    round: int
    parameters: bytes
    rows: int
    """Rows trained on; 0 says that the client could not train: it has lost the backbone."""
    loss: float
    """Mean over the steps of the last local epoch."""
    backbone_digest: bytes = b""


class EvaluationTask(Message, frozen=True, tag=True):
    """Rounds without test rows at the aggregator: the round's model, to be measured on clients' test rows. The answer
    is a secure sum."""

    reveals = Reveals("the shared model after the round", Grain.MODEL, "none: all clients share it")
    round: int
    model_digest: bytes
    parameters: bytes


class SharedRows(Message, frozen=True, tag=True):
    """Rounds, rule `share`: the aggregator's shared rows, to each client once."""

    reveals = Reveals("the aggregator's shared rows and their labels", Grain.ROW, "none: its party.toml allows it")
    rows: int
    inputs: bytes
    """float32, rows x columns, as the network reads them."""
    labels: bytes
    """float32, rows."""


class Published(Message, frozen=True, tag=True):
    """Rounds: the final model, to every client, chosen or not."""

    reveals = Reveals("the final shared model", Grain.MODEL, "none: all clients share it")
    round: int
    parameters: bytes
    model_digest: bytes
    backbone: bytes = b""
    backbone_digest: bytes = b""


class SumTask(Message, frozen=True, tag=True):
    """Secure sums: the aggregator asks for one client's part of a sum."""

    reveals = Reveals("that such a sum is taken", Grain.NOTHING)
    sum: int
    """Numbers the job's sums; all messages of a sum carry it."""
    round: int
    purpose: str
    """What is summed: updates, class counts, evaluation."""
    numbers: tuple[float, ...] = ()
    """Public: what a client needs to know to answer."""


class PairKey(Message, frozen=True, tag=True):
    """Secure sums: one client's X25519 public keys, fresh for this sum."""

    reveals = Reveals("nothing: public keys that are used once", Grain.NOTHING)
    is_vouched = True
    sum: int
    masking: bytes
    sealing: bytes
    signature: bytes = b""
    """By the client's identity key; its server makes it."""

    def own_word(self, sender: str) -> HandedOn:
        statement = msgspec.msgpack.encode([self.sum, self.masking, self.sealing])
        return HandedOn(sender, self.kind(), statement, self.signature)

    def vouched(self, signature: bytes) -> Self:
        return msgspec.structs.replace(self, signature=signature)


class PairKeys(Message, frozen=True, tag=True):
    """Secure sums: the keys of all who answered, (client, masking, sealing, signature) each, in their places."""

    reveals = Reveals(
        "who takes part in this sum",
        Grain.NOTHING,
        "each client has signed its keys",
    )
    hands_on = True
    sum: int
    keys: tuple[tuple[str, bytes, bytes, bytes], ...]

    def handed_on(self) -> Iterator[HandedOn]:
        for client, masking, sealing, signature in self.keys:
            yield PairKey(self.sum, masking, sealing, signature).own_word(client)


class SealedShares(Message, frozen=True, tag=True):
    """Secure sums: shares of a client's masking key and self-mask seed; up to each peer, then down from each peer."""

    reveals = Reveals(
        "to the aggregator nothing; to its holder one share of each peer's secrets, which says nothing",
        Grain.NOTHING,
        "Shamir's secret sharing, below the threshold; X25519, ChaCha20-Poly1305",
    )
    sum: int
    boxes: tuple[tuple[str, bytes], ...]
    """By the other client's name."""
    digests: bytes = b""
    """Up, of each member's two shares, by which the aggregator knows a forged share; down, of the two in each box."""


class MaskedReply(Message, frozen=True, tag=True):
    """Secure sums: one client's words modulo 2^W under all its masks, W / 8 bytes each, little-endian."""

    reveals = Reveals("nothing by itself: uniform words", Grain.NOTHING, "pairwise masks and a self mask, ChaCha20")
    sum: int
    words: bytes


class UnmaskTask(Message, frozen=True, tag=True):
    """Secure sums: whose masked words have come, and so will be in the sum."""

    reveals = Reveals("which clients dropped out of this sum", Grain.NOTHING)
    sum: int
    arrived: tuple[str, ...]


class UnmaskShares(Message, frozen=True, tag=True):
    """Secure sums: shares of the self-mask seeds of those in the sum, and of the masking keys of the others."""

    reveals = Reveals(
        "with those of the threshold, the sum over the clients in it; nothing more of a single one",
        Grain.MODEL,
        "a client gives one kind of share for each peer, never both",
    )
    sum: int
    self_masks: tuple[tuple[str, bytes], ...]
    masking_keys: tuple[tuple[str, bytes], ...]
