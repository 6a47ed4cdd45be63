"""Labels out of the cut error of layout embeddings: the attacks of threat_model.md, without protection and with noise.

Layout features sends no error at all (tests/vfl/test_messages.py).
"""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vfl.flow import run_together
from vfl.kinds import flow_of, read_spec_as
from vfl.messages import CutGradient
from vfl.planning.training import resolve
from vfl.setup import Setup, Table
from vfl.spec.training import TrainingSpec

ROWS, COLUMNS = 1024, 6


def errors_seen(cut_noise):
    """(cut gradients of every step as the feature party sees them, labels of their rows): a quarter are positive."""
    draws = np.random.Generator(np.random.Philox(11))
    columns = draws.standard_normal((ROWS, COLUMNS))
    labels = (columns @ draws.standard_normal(COLUMNS) + draws.standard_normal(ROWS) > 2.0).astype(np.float64)
    spec = resolve(
        read_spec_as(
            TrainingSpec,
            f"""
        job = {{ name = "leak", task = "binary" }}
        roster = {{ label = "l", features = ["f"] }}
        model = {{ layout = "embeddings", bottom = {{ out = 4 }} }}
        protection = {{ cut_noise = {{ {cut_noise} }} }}
        train = {{ epochs = 1, batch_rows = 512 }}
        encryption = {{ scheme = "none" }}
        [data]
        l = {{ dataset = "l", label = "y" }}
        f = {{ dataset = "f", columns = {[f"c{i}" for i in range(COLUMNS)]} }}
        """,
        )
    )
    feature = Setup(spec, "f", {"rows": Table(b"", columns)}, b"joint", b"private of f")
    label = replace(
        feature, me="l", tables={"rows": Table(b"", np.zeros((ROWS, 0)), labels)}, private_seed=b"private of l"
    )
    together = run_together({s.me: flow_of(s) for s in (label, feature)})
    cuts = [line.message for line in together.transcript if isinstance(line.message, CutGradient)]
    seen = [np.frombuffer(cut.values).reshape(-1, 4) for cut in cuts]
    return [(errors, labels[batch.rows]) for errors, batch in zip(seen, feature.batches(), strict=True)]


def sign_free(labels, scores):
    auc = roc_auc_score(labels, scores)
    return max(auc, 1 - auc)


def norm_attack(errors, labels):
    return sign_free(labels, np.linalg.norm(errors, axis=1))


def direction_attack(errors, labels):
    """Five known positives: the best cosine to one of them."""
    unit = errors / np.linalg.norm(errors, axis=1, keepdims=True)
    known = unit[np.flatnonzero(labels)[:5]]
    return sign_free(labels, (unit @ known.T).max(axis=1))


def spectral_attack(errors, labels):
    """The first singular direction of the centred errors (Sun et al., arXiv 2203.01451)."""
    centred = errors - errors.mean(axis=0)
    return sign_free(labels, centred @ np.linalg.svd(centred, full_matrices=False)[2][0])


@pytest.mark.parametrize("attack", [direction_attack, spectral_attack])
def test_bare_cut_errors_give_nearly_every_label_away(attack):
    assert all(attack(errors, labels) > 0.99 for errors, labels in errors_seen('method = "none"'))


def test_norms_of_bare_cut_errors_give_labels_away_too():
    assert max(norm_attack(errors, labels) for errors, labels in errors_seen('method = "none"')) > 0.6


@pytest.mark.parametrize("attack", [norm_attack, direction_attack, spectral_attack])
def test_noise_wide_against_the_errors_takes_the_attacks_their_ground(attack):
    largest = max(np.linalg.norm(errors, axis=1).max() for errors, _ in errors_seen('method = "none"'))
    values = [attack(e, y) for e, y in errors_seen(f'method = "isotropic", scale = {4 * largest}')]
    assert max(values) < 0.75  # of a few hundred rows under noise from the operating system; bare errors give 0.99
