"""A feature party's own bottom module: named by its owner, run in its owner's worker, unseen by the peer."""

from pathlib import Path

import pytest
import safetensors.numpy

MODEL = """
[model]
layout = "embeddings"
bottom = { kind = "private", out = 3 }
top = { kind = "mlp", hidden = [4] }
[protection]
cut_noise = { method = "none" }
[encryption]"""

HONEST = """
import torch

def build(columns, width):
    return torch.nn.Sequential(torch.nn.Linear(columns, 5), torch.nn.Sigmoid(), torch.nn.Linear(5, width))
"""
EXPLODING = (
    HONEST.replace("torch.nn.Linear(5, width)", "torch.nn.Linear(5, width), Explodes()")
    + """
class Explodes(torch.nn.Module):
    def forward(self, values):
        return values * 1e6
"""
)


def ends(parties, job_spec, code):
    """Both sides' views of a job over this bottom module once it has ended."""
    label, feature = parties
    (feature.folder / "bottom.py").write_text(code)
    job = label.submit(job_spec(epochs="2").replace("[encryption]", MODEL))
    return [party.over(job["id"]) for party in parties]


def test_a_private_bottom_learns_and_stays_with_its_owner(parties, job_spec):
    label, feature = ends(parties, job_spec, HONEST)
    assert [label["state"], feature["state"]] == ["done", "done"], [label["error"], feature["error"]]
    kept = safetensors.numpy.load(Path(feature["model_path"]).read_bytes())
    assert kept["bottom.0.weight"].shape == (5, 20)
    assert not any(name.startswith("bottom") for name in safetensors.numpy.load(Path(label["model_path"]).read_bytes()))
    assert any(line["message"] == "CutGradient" and line["values"] for line in feature["reveals"])


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("import nothing_of_that_name", "invalid_bottom", "cannot be loaded"),
        ("def build(columns, width): raise ValueError('no')", "invalid_bottom", "cannot be made: ValueError: no"),
        ("def build(columns, width): return 3", "invalid_bottom", "cannot be made"),
        (HONEST.replace("Linear(5, width)", "Linear(5, 7)"), "invalid_bottom", "the job says 3 columns"),
        (EXPLODING, "diverged", "exploded: an embedding reaches"),
    ],
    ids=["not loadable", "raises", "no module", "another width", "exploding"],
)
def test_a_bottom_that_cannot_serve_ends_the_job_by_name_and_tells_the_peer_nothing_of_it(
    parties, job_spec, code, error, message
):
    label, feature = ends(parties, job_spec, code)
    assert [label["state"], feature["state"]] == ["failed", "failed"]
    assert feature["error"]["code"] == label["error"]["code"] == error
    assert message in feature["error"]["message"]
    assert label["error"]["side"] == "feature-party"
    assert message not in label["error"]["message"]
    assert "bottom.py" not in str(label["error"])
