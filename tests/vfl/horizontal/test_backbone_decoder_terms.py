"""Terms of backbone-decoder that cannot work are refused beforehand, with ways out (refused_settings.md)."""

import pytest
from rounds_federation import spec

from vfl.errors import SpecConflict, SpecError
from vfl.kinds import read_spec_as
from vfl.spec.rounds import RoundsSpec


def job(terms: str = "", *, cut: str = 'cut = "features"', tables=("test", "public"), hidden=(48, 24)) -> RoundsSpec:
    table = f"[rounds.backbone_decoder]\n{cut}\n{terms}\n"
    return spec(parts=["backbone_decoder"], hidden=hidden, extra=table, tables=tables)


def refused(**settings) -> SpecConflict:
    with pytest.raises(SpecConflict) as raised:
        job(**settings)
    assert raised.value.code == "spec_conflict"
    return raised.value


def test_x8_a_student_needs_public_rows():
    error = refused(tables=("test",))
    assert 'X8: derive = "student" with no public rows' in str(error)
    assert "[data] public" in error.fix
    assert "another derive" in error.fix
    job(tables=("test", "public"))
    job('derive = "low_rank"', tables=("test",))


def test_x8_distilling_needs_public_rows():
    error = refused(terms='derive = "prune"\ncarry_back = "distil"', tables=("test",))
    assert 'X8: carry_back = "distil" with no public rows' in str(error)
    assert "[data] public" in error.fix
    assert 'carry_back = "copy"' in error.fix
    job('derive = "prune"\ncarry_back = "distil"')


@pytest.mark.parametrize("rule", ["copy", "delta"])
@pytest.mark.parametrize("widths", ["", "student_hidden = [16]", "student_hidden = [24, 12]"])
def test_x8_nothing_is_copied_between_decoders_of_different_shape(rule, widths):
    error = refused(terms=f'translator = false\ncarry_back = "{rule}"\n{widths}')
    assert "X8: carry_back by copy or delta with decoders of different shape" in str(error)
    assert "translator = true" in error.fix
    assert "end student_hidden with 24" in error.fix
    assert 'carry_back = "distil"' in error.fix
    job(f'translator = true\ncarry_back = "{rule}"\n{widths}')
    job(f'translator = false\ncarry_back = "distil"\n{widths}')
    job(f'translator = false\ncarry_back = "{rule}"\nstudent_hidden = [12, 24]')
    job(f'derive = "quantise"\ntranslator = false\ncarry_back = "{rule}"')


@pytest.mark.parametrize("cut", ["", 'cut = "head"', 'cut = "hidden7"', 'cut = "features.linear"'])
def test_x9_a_model_is_cut_at_a_named_block_that_leaves_a_decoder(cut):
    error = refused(cut=cut, hidden=(48, 24, 24))
    assert "X9: the model is not cut at a named block" in str(error)
    assert error.fix == "Set cut to one of hidden1, hidden2, features."


def test_x8_and_x9_cannot_be_waived():
    with pytest.raises(SpecConflict, match=r"rounds\.allow names 'X8'"):
        spec(parts=["backbone_decoder"], extra='allow = ["X8"]\n[rounds.backbone_decoder]\ncut = "features"\n')


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ("share = 0.0", "share must lie in"),
        ("share = 1.5", "share must lie in"),
        ("bits = 1", "bits must be 2 to 8"),
        ("bits = 9", "bits must be 2 to 8"),
        ("rank = 0", "rank must be at least 1"),
        ("align_epochs = -1", "align_epochs must not be negative"),
        ("align_rate = 0.0", "align_rate must be a finite number above 0"),
        ("distil_epochs = 0", "distil_epochs must be at least 1"),
        ("delta_scale = 0.0", "delta_scale must be a finite number above 0"),
        ("student_hidden = [16, 0]", "student_hidden: every width is at least 1"),
        ('derive = "layers"', "layers is 1, and 0 blocks up to the cut are as wide as the one before"),
        ('derive = "prune"\nalgin_epochs = 3', "algin_epochs"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(terms, named):
    with pytest.raises(SpecError, match=named):
        job(terms)


def test_layers_are_counted_up_to_the_cut():
    assert job('derive = "layers"\nlayers = 2', hidden=(48, 24, 24, 24))
    with pytest.raises(SpecError, match="layers is 2, and 1 blocks"):
        job('derive = "layers"\nlayers = 2', cut='cut = "hidden3"', hidden=(48, 24, 24, 24))


def images(terms: str) -> RoundsSpec:
    return read_spec_as(
        RoundsSpec,
        f"""
        job = {{name = "images", protocol = "rounds", task = "multiclass", classes = 10}}
        roster = {{aggregator = "hub", clients = ["c0", "c1", "c2"]}}
        data.hub = {{test = "t", public = "p"}}
        data.c0 = {{dataset = "r"}}
        data.c1 = {{dataset = "r"}}
        data.c2 = {{dataset = "r"}}
        train = {{batch_rows = 32}}
        model = {{network = "small_cnn", input_shape = [1, 8, 8], input_range = [0, 1], label = "label"}}
        rounds = {{rounds = 1, parts = ["backbone_decoder"], backbone_decoder = {{{terms}}}}}
        """,
    )


def test_a_students_pictures_must_fit_behind_the_cut():
    images('cut = "block1", student_hidden = [4, 8]')
    images('cut = "features", student_hidden = [4, 16]')
    for terms, named in [
        ('cut = "block1", student_hidden = [4]', "gives 1 widths; a student cut after 'block1' has 2"),
        ('cut = "features", student_hidden = [4]', "give the stem and the features"),
        ('cut = "block1", translator = false, carry_back = "distil"', 'needs cut = "features"'),
    ]:
        with pytest.raises(SpecError, match=named):
            images(terms)


def test_classes_are_neither_preserved_nor_debiased_in_a_regression():
    text = """
    job = {name = "numbers", protocol = "rounds", task = "regression"}
    roster = {aggregator = "hub", clients = ["c0", "c1", "c2"]}
    data = {hub = {test = "t", public = "p"}, c0 = {dataset = "r"}, c1 = {dataset = "r"}, c2 = {dataset = "r"}}
    train = {batch_rows = 32}
    model = {network = "mlp", input_shape = [8], label = "label"}
    rounds = {rounds = 1, parts = ["backbone_decoder"], backbone_decoder = {cut = "features", debias = %s}}
    """
    read_spec_as(RoundsSpec, text % "false")
    with pytest.raises(SpecError, match="a regression has none"):
        read_spec_as(RoundsSpec, text % "true")
