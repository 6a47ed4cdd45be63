"""Labels and weights out of how a job ends: a feature party shifts what it opens to the edge of the range.

Layout features claims that it learns neither, whatever it sends (docs/threat_model.md, A4). Each attack runs against a
label party that ends the job once a value leaves the range, where it succeeds, and against ours, where it fails.
"""

from dataclasses import replace

import numpy as np
import pytest

from crypto.ciphertexts import read_words, write_words
from crypto.ckks import CkksPrivateKey, Masked, repeats
from crypto.encrypted_weights import EncryptedWeights as Weights
from crypto.packing import groups_for
from crypto.scoring_keys import WeightMaterial
from crypto.scoring_parameters import FIRST
from vfl.errors import Diverged
from vfl.flow import Report, receive, run_together, send
from vfl.kinds import read_spec_as
from vfl.messages import (
    EncryptedEmbedding,
    EncryptedScores,
    EncryptedWeights,
    MaskedGradient,
    OpenedGradient,
    PublicKeys,
)
from vfl.planning.training import opened_per_step, preset_of, resolve
from vfl.protocols.ckks_training import label_party
from vfl.protocols.label_side import LabelSide
from vfl.protocols.same_rows import agree_on_rows
from vfl.reports import Outcome, StepDone
from vfl.setup import Setup, Table
from vfl.spec.training import TrainingSpec

ROWS, ASKED = 80, 5

SPEC = resolve(
    read_spec_as(
        TrainingSpec,
        """
        job = { name = "early end", task = "binary" }
        roster = { label = "l", features = ["f"] }
        train = { epochs = 1, batch_rows = 64 }
        [data]
        l = { dataset = "l", label = "y" }
        f = { dataset = "f", columns = ["c"] }
        """,
    )
)


def diverged(outcome):
    return [notice for notice in outcome.notices if notice.code == "diverged"]


def ending_early(flow):
    """A label party without our answer: what leaves the range ends its job."""
    answer = None
    while True:
        try:
            effect = flow.send(answer)
        except StopIteration as stop:
            if diverged(stop.value):
                raise Diverged("a score left the range") from None
            return stop.value
        if isinstance(effect, Report) and isinstance(effect.fact, StepDone) and effect.fact.dropped:
            raise Diverged("a sum left the range")
        answer = yield effect


def as_built(flow):
    return flow


def probing(setup, probed):
    """A feature party that encrypts one row alone and shifts its value by a quarter of the modulus: whether the value
    is positive decides on which side of the edge it falls."""
    preset = preset_of(setup.spec)
    key = CkksPrivateKey(replace(preset, noise=0.0), 4096)
    modulus, values = preset.data_moduli[0], opened_per_step(setup.spec)

    def shifted(opened, position):
        words = np.frombuffer(opened, "<u8").copy()
        words[position] = (int(words[position]) + modulus // 4) % modulus
        return words.tobytes()

    setup = yield from agree_on_rows(setup)
    yield from send("l", PublicKeys(*key.public_material(values)))
    (batch,) = setup.batches()
    alone = np.where(batch.rows == probed, 3.0, 0.0)[:, None]
    yield from send("l", EncryptedEmbedding(1, key.encrypt_rows(alone, repeats(len(alone)))))
    masked = yield from receive(MaskedGradient, "l", 1)
    opened = key.open(Masked(masked.packed, masked.masked), groups_for(values))
    yield from send("l", OpenedGradient(1, shifted(opened, 0) if probed in batch.rows else opened))
    received = yield from receive(EncryptedWeights, "l")
    weights = Weights(WeightMaterial(received.public, received.weights), 1, 1)
    sent = weights.scores(np.full((len(setup.test_rows), 1), 3.0))
    words = read_words(memoryview(sent.coefficients), (FIRST,), len(setup.test_rows))
    at = setup.test_rows == probed
    words[0, at] = (words[0, at] + np.uint64(FIRST // 4)) % np.uint64(FIRST)
    yield from send("l", EncryptedScores(1, sent.polynomials, write_words(words, (FIRST,))))
    return Outcome(b"")


def seen_by_the_feature_party(build, probed, labels, private_seed=b"private of l"):
    """(kind and size of all it receives, whether the job went to its end; the label party's outcome or None)."""
    feature = Setup(SPEC, "f", {"rows": Table(b"", np.zeros((ROWS, 1)))}, b"joint", b"private of f")
    label = replace(
        feature, me="l", tables={"rows": Table(b"", np.zeros((ROWS, 0)), labels)}, private_seed=private_seed
    )
    roles, received = {"l": build(label_party(label)), "f": probing(feature, probed)}, list[tuple[object, ...]]()
    try:
        together = run_together({party: recording(role, received) for party, role in roles.items()})
    except Diverged:
        return (*received, "ended early"), None
    return (*received, "went to its end"), together.results["l"]


def recording(role, received):
    """The same role; what the feature party is handed is kept, by kind and size of its fields."""
    answer = None
    while True:
        try:
            effect = role.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = yield effect
        if role.__name__ == "probing" and answer is not None and answer.message is not None:
            message = answer.message
            fields = [getattr(message, name) for name in message.__struct_fields__]
            received.append((message.kind(), *(len(f) if isinstance(f, bytes) else f for f in fields)))


@pytest.mark.parametrize(("build", "told"), [(ending_early, True), (as_built, False)])
def test_how_a_job_ends_would_tell_the_label_of_a_row_encrypted_alone(build, told):
    labels = np.tile([0.0, 1.0], ROWS // 2)
    setup = Setup(SPEC, "f", {"rows": Table(b"", np.zeros((ROWS, 1)))}, b"joint", b"")
    views: dict[float, set[object]] = {0.0: set(), 1.0: set()}
    for probed in setup.training_rows[:ASKED]:
        view, outcome = seen_by_the_feature_party(build, probed, labels)
        views[labels[probed]].add(tuple(view[1:]))  # the first is the digest of the rows
        if not told:
            # A row with label 0 has a positive error: its update was left out, and the label party alone hears of it.
            assert [notice.text.startswith("diverged: 1 of 1") for notice in diverged(outcome)] == [True] * int(
                1 - labels[probed]
            )
    assert all(views.values())
    assert (not views[0.0] & views[1.0]) is told
    assert (views[0.0] == views[1.0]) is not told


@pytest.mark.parametrize(("build", "told"), [(ending_early, True), (as_built, False)])
def test_how_an_evaluation_ends_would_tell_the_sign_of_a_weight(build, told):
    setup = Setup(SPEC, "f", {"rows": Table(b"", np.zeros((ROWS, 1)))}, b"joint", b"")
    labels = np.tile([0.0, 1.0], ROWS // 2)
    views: dict[bool, set[object]] = {True: set(), False: set()}
    for number in range(3, 6):  # of these first weights one is negative
        seed = bytes([number])
        untouched = replace(setup, me="l", tables={"rows": Table(b"", np.zeros((ROWS, 0)), labels)}, private_seed=seed)
        positive = bool(LabelSide(untouched).top.embedding_weights[0, 0] > 0)
        view, outcome = seen_by_the_feature_party(build, setup.test_rows[0], labels, seed)
        views[positive].add(tuple(view[1:]))
        if not told:
            assert [notice.text.startswith("diverged: the scores of 1 of 16") for notice in diverged(outcome)] == [
                True
            ] * positive
    assert all(views.values())
    assert (not views[True] & views[False]) is told
    assert (views[True] == views[False]) is not told
