"""A label party that spoils the bottom model of the feature party in layout embeddings: huge errors, and none at all.

What an honest label party can send follows from the agreed weight limit. Each attack runs against a feature party that
takes whatever comes, where the job ends as if all were well, and against ours, where it is refused or told.
"""

from dataclasses import replace

import numpy as np
import pytest

from vfl.errors import RemoteProtocolError
from vfl.flow import run_together
from vfl.kinds import flow_of, read_spec_as
from vfl.models.tensors import load_tensors
from vfl.planning.training import resolve
from vfl.protocols import ckks_training, split_training
from vfl.protocols.feature_side import FeatureSide
from vfl.protocols.label_side import LabelSide
from vfl.setup import Setup, Table
from vfl.spec.training import TrainingSpec

ROWS = 160


class TakesWhateverComes(FeatureSide):
    """A feature party without our answer."""

    def _error_bound(self, sent):
        return np.inf


class Spoils(LabelSide):
    """A label party that adds far more to every coordinate of a cut error than agreed: a constant, or noise."""

    cut_deviation = 1e3

    def cut_noise(self, rows, width, draw=None):
        return np.full((rows, width), 1e6) + 0j


class SendsNothing(LabelSide):
    """A label party whose model looks away from the embedding: its cut errors are zero."""

    def update(self, sums, rows, step):
        super().update(sums, rows, step)
        self.top._weights["weights"][:, : self.top.shape.embedding] = 0.0

    def cut_basis(self):
        return np.eye(self.top.shape.embedding)[:1]


def train(monkeypatch, scheme, *, label=LabelSide, feature=FeatureSide):
    spec = resolve(
        read_spec_as(
            TrainingSpec,
            f"""
        job = {{ name = "spoiled", task = "binary" }}
        roster = {{ label = "l", features = ["f"] }}
        model = {{ layout = "embeddings", bottom = {{ out = 2 }} }}
        protection = {{ cut_noise = {{ method = "none" }} }}
        train = {{ epochs = 2, batch_rows = 128, optimiser = {{ rate = 0.05 }} }}
        encryption = {{ scheme = "{scheme}" }}
        [data]
        l = {{ dataset = "l", label = "y" }}
        f = {{ dataset = "f", columns = ["a", "b", "c"] }}
        """,
        )
    )
    columns = np.random.Generator(np.random.Philox(1)).standard_normal((ROWS, 3))
    labels = (columns[:, 0] > 0).astype(np.float64)
    ours = Setup(spec, "f", {"rows": Table(b"", columns)}, b"joint", b"private of f")
    theirs = replace(ours, me="l", tables={"rows": Table(b"", np.zeros((ROWS, 0)), labels)}, private_seed=b"of l")
    for module in (ckks_training, split_training):
        monkeypatch.setattr(module, "LabelSide", label)
        monkeypatch.setattr(module, "FeatureSide", feature)
    return run_together({s.me: flow_of(s) for s in (theirs, ours)}).results["f"]


def largest_weight(outcome):
    weights = load_tensors(outcome.state)
    return max(np.abs(weights[name]).max() for name in weights if name.startswith("bottom"))


@pytest.mark.parametrize("scheme", ["none", "ckks"])
def test_a_cut_error_beyond_what_the_weight_limit_allows_would_spoil_the_bottom_and_is_refused(monkeypatch, scheme):
    spoiled = train(monkeypatch, scheme, label=Spoils, feature=TakesWhateverComes)
    assert largest_weight(spoiled) > 5 * largest_weight(train(monkeypatch, scheme))
    with pytest.raises(
        RemoteProtocolError, match=r"l sent a cut error of \S+; with train.weight_limit = \d+ it cannot"
    ):
        train(monkeypatch, scheme, label=Spoils)


@pytest.mark.parametrize("scheme", ["none", "ckks"])
def test_an_honest_run_is_told_of_nothing(monkeypatch, scheme):
    assert train(monkeypatch, scheme).notices == []


@pytest.mark.parametrize("scheme", ["none", "ckks"])
def test_an_epoch_of_zero_cut_errors_is_told_to_the_feature_partys_operator(monkeypatch, scheme):
    """It could be the label party's honest model: the job goes on."""
    (notice,) = train(monkeypatch, scheme, label=SendsNothing).notices
    assert (notice.kind, notice.code) == ("warning", "no_cut_error")
    assert "zero in 1 of 2 epochs" in notice.text


def test_a_bottom_that_gives_every_row_the_same_is_named(monkeypatch):
    spoiled = train(monkeypatch, "none", label=Spoils, feature=TakesWhateverComes)
    assert [notice.code for notice in spoiled.notices] == ["bottom_collapsed"]
