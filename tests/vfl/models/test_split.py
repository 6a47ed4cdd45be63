"""One model in two parts that can be trained, stored and replaced apart."""

from dataclasses import replace

import pytest
import torch

from vfl.errors import SpecError
from vfl.models import networks
from vfl.models.split import cut
from vfl.spec.network_names import cut_names

HIDDEN = (32, 16, 16)


@pytest.fixture
def model():
    return networks.build("mlp", (20,), 3, hidden=HIDDEN, norm="batch", generator=torch.Generator().manual_seed(0))


ROWS = torch.rand(7, 20, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", cut_names("mlp", HIDDEN))
def test_the_decoder_on_the_embedding_is_the_whole_model(model, name):
    parts = cut(model.eval(), name)
    assert torch.equal(parts.decoder(parts.backbone(ROWS)), model(ROWS))


@pytest.mark.parametrize("name", cut_names("mlp", HIDDEN))
def test_tensors_keep_their_names_so_that_the_two_states_make_up_the_model_s(model, name):
    parts = cut(model, name)
    assert [*networks.shapes_of(parts.backbone), *networks.shapes_of(parts.decoder)] == list(networks.shapes_of(model))
    assert list(networks.shapes_of(parts.whole())) == list(networks.shapes_of(model))
    assert list(parts.backbone.named_children())[-1][0] == name


def test_the_parts_share_the_weights_of_the_model(model):
    with torch.no_grad():
        cut(model, "features").decoder.get_parameter("head.bias").fill_(5)
    assert (model.head.bias == 5).all()


def test_a_decoder_of_one_model_fits_behind_a_backbone_of_another(model):
    """As a bottom under a top model, or a smaller backbone under the first model's decoder."""
    other = networks.build("mlp", (20,), 3, hidden=(16,), norm="none", generator=torch.Generator().manual_seed(2))
    joined = replace(cut(model, "features"), backbone=cut(other, "features").backbone)
    assert joined.whole()(ROWS).shape == (7, 3)


@pytest.mark.parametrize(
    ("name", "why"),
    [("", "no cut is named"), ("head", "leaves no decoder"), ("features.linear", "no block"), ("stem", "no block")],
)
def test_a_cut_that_leaves_no_backbone_and_decoder_is_refused_with_the_blocks_it_could_follow(model, name, why):
    with pytest.raises(SpecError, match=why) as raised:
        cut(model, name)
    assert "hidden1, hidden2, features" in raised.value.fix
    assert "head" not in raised.value.fix
