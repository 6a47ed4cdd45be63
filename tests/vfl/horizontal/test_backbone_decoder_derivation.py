"""Second backbones: what each derivation keeps of the first, in how many bytes, and how close it comes (R1.1, R1.2)."""

import itertools

import numpy as np
import pytest
import torch
from rounds_federation import AGGREGATOR, setups, spec

from vfl.codecs import InvalidBody
from vfl.errors import ImpossibleJob, InvalidData
from vfl.horizontal.backbone_decoder import second_backbone as second
from vfl.horizontal.backbone_decoder.derivation import derive
from vfl.horizontal.backbone_decoder.feature_alignment import alignment_error, fit_translator
from vfl.horizontal.backbone_decoder.packing import PACKINGS
from vfl.horizontal.backbone_decoder.report import multiply_adds
from vfl.horizontal.network import first_model, network_of
from vfl.horizontal.rows import examples_of
from vfl.kinds import read_spec_as
from vfl.models.local_training import features
from vfl.models.networks import parameters_of, shapes_of
from vfl.models.split import ModelSplit, cut
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import BackboneDecoder

SEED = bytes(range(32))
DERIVATIONS = ("identity", "student", "layers", "prune", "quantise", "low_rank")


def job(terms: str = "", *, hidden=(48, 24, 24, 24), cut_at="features", norm="none") -> RoundsSpec:
    usual = "".join(line for line in ("rank = 6\n", "align_epochs = 3\n") if line.split()[0] not in terms)
    table = f'[rounds.backbone_decoder]\ncut = "{cut_at}"\n{usual}{terms}\n'
    return spec(parts=["backbone_decoder"], hidden=hidden, extra=table, norm=norm, tables=("test", "public", "first"))


def first_of(this: RoundsSpec) -> ModelSplit:
    return cut(first_model(setups(this)[AGGREGATOR]), second.terms_of(this).cut)


def public_of(this: RoundsSpec) -> torch.Tensor:
    return examples_of(this, setups(this)[AGGREGATOR].tables["public"], "public").inputs


def derived(this: RoundsSpec, public: torch.Tensor | None = None):
    first = first_of(this)
    made = derive(this, first, public, SEED)
    return first, made, second.rebuild(this, made.body)


def weights(module) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in parameters_of(module).items() if values.ndim > 1}


@pytest.mark.parametrize(("derive_by", "norm"), [*itertools.product(DERIVATIONS, ("none", "batch"))])
def test_every_derivation_gives_a_backbone_in_the_first_ones_space_and_leaves_the_first_alone(derive_by, norm):
    this = job(f'derive = "{derive_by}"', norm=norm)
    first, before = first_of(this), parameters_of(first_of(this).whole())
    rows = public_of(this)
    made = derive(this, first, rows, SEED)
    backbone = second.rebuild(this, made.body)
    assert features(backbone, rows).shape == features(first.backbone, rows).shape
    assert all(torch.equal(values, before[name]) for name, values in parameters_of(first.whole()).items())
    assert derive(this, first, rows, SEED).body == made.body
    assert all(torch.equal(v, parameters_of(first.decoder)[n]) for n, v in parameters_of(made.decoder).items())
    assert made.alignment_error is not None
    assert 0 <= made.alignment_error < 0.8
    assert not backbone.training
    assert not any(values.requires_grad for values in backbone.parameters())


def test_identity_is_the_first_backbone():
    first, made, backbone = derived(job('derive = "identity"'), public_of(job()))
    assert all(torch.equal(values, parameters_of(first.backbone)[n]) for n, values in parameters_of(backbone).items())
    assert made.alignment_error == 0


@pytest.mark.parametrize(
    ("kept", "blocks"),
    [(1, ["hidden3"]), (2, ["hidden3", "features"]), (3, ["hidden3", "hidden5", "features"])],
)
def test_layers_keeps_blocks_at_even_distances(kept, blocks):
    this = job(f'derive = "layers"\nlayers = {kept}\nalign_epochs = 0\ntranslator = false', hidden=(48, 24, *[24] * 4))
    first, _, backbone = derived(this)
    assert [name for name, _ in backbone.named_children()] == ["hidden1", "hidden2", *blocks]
    state = parameters_of(first.backbone)
    assert all(torch.equal(values, state[name]) for name, values in parameters_of(backbone).items())


def test_prune_keeps_the_largest_weights_of_the_whole_backbone_and_sends_a_mask_and_values():
    this = job('derive = "prune"\nshare = 0.1')
    first, made, backbone = derived(this)
    before = np.concatenate([values.ravel() for values in weights(first.backbone).values()])
    after = np.concatenate([values.ravel() for values in weights(backbone).values()])
    largest = np.sort(np.abs(before))[-round(0.1 * len(before)) :]
    assert np.array_equal(np.sort(np.abs(after[after != 0])), largest)
    assert np.array_equal(after[after != 0], before[after != 0])
    offsets = 4 * (48 + 3 * 24)
    header = len(made.body) - 4 * len(largest) - -(-len(before) // 8) - offsets
    assert 0 < header < 64 + 2 * 9


def test_what_is_pruned_stays_pruned_while_the_rest_is_aligned():
    errors = {}
    for epochs in (0, 10):
        this = job(f'derive = "prune"\nshare = 0.2\ntranslator = false\nalign_epochs = {epochs}')
        _, made, backbone = derived(this, public_of(this))
        kept = sum(int((values != 0).sum()) for values in weights(backbone).values())
        assert kept == round(0.2 * sum(values.size for values in weights(backbone).values()))
        errors[epochs] = made.alignment_error
    assert errors[10] < 0.7 * errors[0]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_quantise_leaves_each_output_row_so_many_levels_about_zero_at_bits_per_weight(bits):
    this = job(f'derive = "quantise"\nbits = {bits}')
    first, made, backbone = derived(this)
    count = 0
    for name, values in weights(backbone).items():
        count += values.size
        for row, original in zip(values, weights(first.backbone)[name], strict=True):
            steps = np.unique(np.abs(row))
            assert len(steps) <= 1 << (bits - 1)
            scale = steps[steps > 0].min() if bits == 2 else None
            assert scale is None or np.allclose(steps[steps > 0], scale)
            assert ((row - original) ** 2).sum() <= {2: 0.35, 3: 0.1, 4: 0.03, 8: 1e-4}[bits] * (original**2).sum()
    small = 4 * 2 * (48 + 3 * 24)  # a scale and an offset per output
    assert 0 < len(made.body) - -(-count * bits // 8) - small < 64 + 2 * 9


def test_low_rank_is_the_best_approximation_of_its_rank_where_two_factors_are_fewer_weights():
    first, _, backbone = derived(job('derive = "low_rank"\nrank = 6', hidden=(48, 24, 8)))
    state = parameters_of(backbone)
    assert "features.linear.weight" in state  # 24 x 8 = 192 weights are not more than 6 x (24 + 8)
    for layer in ("hidden1.linear", "hidden2.linear"):
        product = state[f"{layer}.up.weight"] @ state[f"{layer}.down.weight"]
        whole = parameters_of(first.backbone)[f"{layer}.weight"]
        beyond = torch.linalg.svdvals(whole)[6:]
        assert torch.linalg.matrix_rank(product) == 6
        assert ((product - whole) ** 2).sum() == pytest.approx(float((beyond**2).sum()), rel=1e-4)


def test_a_student_of_unnamed_widths_with_its_translator_is_an_eighth_of_the_first_backbone():
    this = job('derive = "student"', hidden=(256, 128))
    first, _, backbone = derived(this, public_of(this))
    ours, theirs = (sum(values.numel() for values in m.parameters()) for m in (backbone, first.backbone))
    assert theirs / 10 < ours <= theirs / 8
    assert [name for name, _ in backbone.named_children()][-1] == "translator"


def test_training_brings_a_student_closer_than_its_translator_alone():
    errors = {}
    for epochs in (0, 40):
        this = job(f"student_hidden = [16]\nalign_epochs = {epochs}", hidden=(48, 24))
        errors[epochs] = derived(this, public_of(this))[1].alignment_error
    assert errors[40] < 0.6 * errors[0]


# The translator


def test_the_translator_is_the_ridge_solution():
    generator = torch.Generator().manual_seed(3)
    given = torch.randn(200, 5, generator=generator)
    wanted = given @ torch.randn(5, 7, generator=generator) + 2
    translator = torch.nn.Linear(5, 7)
    fit_translator(translator, given, wanted)
    extended = torch.cat([given, torch.ones(200, 1)], 1).double().numpy()
    ridge = 1e-3 * np.trace(extended.T @ extended) / 5
    solution = np.linalg.solve(extended.T @ extended + ridge * np.eye(6), extended.T @ wanted.double().numpy())
    assert np.allclose(translator.weight.detach().numpy(), solution[:-1].T, atol=1e-5)
    assert np.allclose(translator.bias.detach().numpy(), solution[-1], atol=1e-5)
    assert alignment_error(features(translator, given), wanted) < 1e-5


def test_over_pictures_the_translator_maps_the_channels_of_each_pixel():
    generator = torch.Generator().manual_seed(4)
    given, mixing = torch.randn(20, 3, 4, 4, generator=generator), torch.randn(6, 3, generator=generator)
    translator = torch.nn.Conv2d(3, 6, 1)
    fit_translator(translator, given, torch.einsum("oc,rchw->rohw", mixing, given))
    assert torch.allclose(translator.weight.detach()[..., 0, 0], mixing, atol=0.01)


def test_a_translator_stays_only_where_widths_differ_or_it_helps():
    rows = public_of(job())

    def last_block(terms: str) -> str:
        names = [name for name, _ in derived(job(terms), rows)[2].named_children()]
        return str(names[-1])

    assert last_block('derive = "quantise"\nbits = 8') == "features"
    assert last_block('derive = "prune"\nshare = 0.1') == "translator"
    assert last_block('derive = "prune"\nshare = 0.1\ntranslator = false') == "features"
    assert last_block('derive = "prune"\nshare = 0.02') == "features"  # the body would be smaller than it


def test_a_student_without_translator_has_it_folded_into_its_decoder():
    terms = 'student_hidden = [16]\ncarry_back = "distil"\n'
    with_it, without = job(terms, hidden=(48, 24)), job(terms + "translator = false", hidden=(48, 24))
    rows = public_of(with_it)
    (_, one, one_backbone), (_, other, other_backbone) = derived(with_it, rows), derived(without, rows)
    folded = features(other.decoder, features(other_backbone, rows))
    assert torch.allclose(
        features(one.decoder, features(one_backbone, rows)), folded, atol=0.05
    )  # the ridge sees larger features
    assert shapes_of(other.decoder)["head.weight"] == (10, 16)
    assert "translator.weight" not in shapes_of(other_backbone)
    first = features(first_of(without).backbone, rows)
    assert (features(other_backbone, rows) ** 2).sum() == pytest.approx(float((first**2).sum()), rel=0.05)


def test_too_few_public_rows_are_refused():
    with pytest.raises(InvalidData, match="9 public rows"):
        derive(job(), first_of(job()), public_of(job())[:9], SEED)


# Images


IMAGES = """
spec_version = 1
job = {{name = "images", protocol = "rounds", task = "multiclass", classes = 10}}
roster = {{aggregator = "hub", clients = ["c0", "c1", "c2"]}}
data = {{hub = {{test = "t", public = "p"}}, c0 = {{dataset = "r"}}, c1 = {{dataset = "r"}}, c2 = {{dataset = "r"}}}}
train = {{batch_rows = 32}}
[model]
network = "small_cnn"
norm = "{norm}"
hidden = [6, 8, 8, 16]
input_shape = [1, 8, 8]
input_range = [0.0, 1.0]
label = "label"
[rounds]
rounds = 1
parts = ["backbone_decoder"]
[rounds.backbone_decoder]
align_epochs = 1
rank = 4
{terms}
"""


def images(terms: str, norm: str = "none") -> RoundsSpec:
    return read_spec_as(RoundsSpec, IMAGES.format(terms=terms, norm=norm))


@pytest.mark.parametrize(
    ("derive_by", "cut_at", "norm"),
    [*itertools.product(DERIVATIONS, ("block2", "features"), ("none",)), ("low_rank", "block1", "group")],
)
def test_every_derivation_works_on_convolutions_cut_at_any_block(derive_by, cut_at, norm):
    layers = "layers = 1\n" if derive_by == "layers" else ""
    this = images(f'cut = "{cut_at}"\nderive = "{derive_by}"\n{layers}', norm)
    whole = network_of(this, SEED)
    first, rows = cut(whole, cut_at), torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    made = derive(this, first, rows, SEED)
    backbone = second.rebuild(this, made.body)
    assert features(made.decoder, features(backbone, rows)).shape == (40, 10)


def test_a_convolution_of_low_rank_is_that_of_its_matrix_of_outputs_by_the_rest():
    this = images('cut = "features"\nderive = "low_rank"')
    first = cut(network_of(this, SEED), "features")
    state = parameters_of(second.rebuild(this, derive(this, first, None, SEED).body))
    down, up = (state[f"block2.conv.{name}.weight"].flatten(1) for name in ("down", "up"))
    whole = parameters_of(first.backbone)["block2.conv.weight"].flatten(1)
    beyond = torch.linalg.svdvals(whole)[4:]
    assert ((up @ down - whole) ** 2).sum() == pytest.approx(float((beyond**2).sum()), rel=1e-4)


def test_a_student_of_another_picture_size_is_refused_with_a_way_out():
    this = images('cut = "block2"\nstudent_hidden = [4, 2, 1]')
    with pytest.raises(ImpossibleJob, match="pixels") as raised:
        derive(this, cut(network_of(this, SEED), "block2"), torch.rand(20, 1, 8, 8), SEED)
    assert "student_hidden" in raised.value.fix


def test_multiply_adds_count_every_pixel_of_a_convolution():
    module = network_of(images('cut = "features"'), SEED)
    stem, block1, block2 = (9 * 6 * 64, 9 * 6 * 8 * 64, 9 * 8 * 8 * 16)  # block1 halves the image behind its filters
    assert multiply_adds(cut(module, "block2").backbone, (1, 8, 8)) == stem + block1 + block2


# Bodies


@pytest.mark.parametrize("derive_by", DERIVATIONS)
def test_a_body_of_another_length_or_kind_is_refused(derive_by):
    this = job(f'derive = "{derive_by}"')
    _, made, _ = derived(this, public_of(this))
    for bad in (
        b"",
        made.body[:-1],
        made.body + b"\0",
        b"\2" + made.body[1:],
        bytes([1 - made.body[0]]) + made.body[1:],
    ):
        with pytest.raises(InvalidBody):
            second.rebuild(this, bad)


@pytest.mark.parametrize("kind", PACKINGS)
def test_packed_weights_are_read_as_they_were_written_whatever_else_the_bits_say(kind):
    terms = BackboneDecoder(cut="features", share=0.3, bits=3)
    generator = np.random.default_rng(5)
    given = {"a": generator.normal(size=(7, 3)).astype("f4"), "b": generator.normal(size=(2, 3, 3, 3)).astype("f4")}
    shapes, packing = {name: values.shape for name, values in given.items()}, PACKINGS[kind]
    tensors, packed = packing.pack(given, terms)
    assert len(packed) == packing.packed_bytes(shapes, terms)
    assert {name: values.shape for name, values in tensors.items()} == dict(packing.tensors(shapes, terms))
    read = packing.unpack(tensors, memoryview(packed), shapes, terms)
    tensors, packed = packing.pack(read, terms)
    again = packing.unpack(tensors, memoryview(packed), shapes, terms)
    assert all(np.allclose(read[name], again[name], atol=1e-6) for name in given)
    anything = packing.unpack(tensors, memoryview(b"\xff" * len(packed)), shapes, terms)
    assert {name: values.shape for name, values in anything.items()} == shapes
