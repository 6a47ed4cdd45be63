"""The agreement: read from TOML, canonical as bytes, refused by name when it contradicts itself."""

import msgspec
import pytest

from vfl.errors import SpecError
from vfl.kinds import allowed, decode_spec, read_spec_as
from vfl.spec.training import TrainingSpec

SPEC = """
[job]
name = "credit"
task = "binary"
[roster]
label = "bank-a"
features = ["telco-b"]
[data.bank-a]
dataset = "loans"
label = "default"
columns = ["income"]
[data.telco-b]
dataset = "usage"
columns = ["calls"]
[train]
epochs = 2
batch_rows = 64
"""


def test_both_sides_compute_the_same_digest_from_the_bytes_that_travel():
    spec = read_spec_as(TrainingSpec, SPEC)
    assert decode_spec(spec.encoded()) == spec
    assert decode_spec(spec.encoded()).digest() == spec.digest()
    assert read_spec_as(TrainingSpec, SPEC.replace("epochs = 2", "epochs = 3")).digest() != spec.digest()


def test_a_byte_order_mark_before_the_document_is_no_part_of_it():
    assert read_spec_as(TrainingSpec, f"\ufeff{SPEC}") == read_spec_as(TrainingSpec, SPEC)


def test_bytes_that_are_not_canonical_are_refused():
    spec = read_spec_as(TrainingSpec, SPEC)
    fields = msgspec.msgpack.decode(spec.encoded())
    reordered = msgspec.msgpack.encode(dict(reversed(list(fields.items()))))
    with pytest.raises(SpecError, match="canonical"):
        decode_spec(reordered)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2", "epocs = 2", "unknown field `epocs`"),
        ("epochs = 2", "epochs = 'two'", "train.epochs"),
        ("epochs = 2", "epochs = 0", "train.epochs must be at least 1"),
        ("epochs = 2", "epochs =", "line"),
        ("batch_rows = 64", "batch_rows = 0", "train.batch_rows must be at least 1"),
        ('task = "binary"', 'task = "ranking"', "job.task"),
        ('task = "binary"', 'task = "binary"\nclasses = 4', "job.classes"),
        ('label = "default"', "", "bank-a is the label party"),
        ('label = "default"', 'label = "income"', "the label is among the columns"),
        ('columns = ["calls"]', "columns = []", "a feature party brings at least one"),
        ('columns = ["calls"]', 'columns = ["calls", "calls"]', "names a column twice"),
        ('columns = ["calls"]', 'columns = ["calls"]\nlabel = "y"', "but telco-b is a feature party"),
        ('features = ["telco-b"]', "features = []", "names nobody"),
        ('features = ["telco-b"]', 'features = ["bank-a"]', "names a party twice"),
        ('features = ["telco-b"]', 'features = ["Telco B"]', "not a party name"),
        ('features = ["telco-b"]', 'features = ["telco-c"]', "exactly the parties of the roster"),
        ('name = "credit"', 'name = ""', "job.name is empty"),
        ("epochs = 2", "epochs = 2\noptimiser = { rate = -1.0 }", "optimiser.rate must be a finite number above 0"),
        ("epochs = 2", "epochs = 2\nweight_limit = nan", "weight_limit must be a finite number of at least 0"),
        ("epochs = 2", "epochs = 2\noptimiser = { rate = inf }", "optimiser.rate must be a finite number above 0"),
        (
            "epochs = 2",
            "epochs = 2\noptimiser = { weight_decay = nan }",
            "must be a finite number of at least 0",
        ),
        ("epochs = 2", "epochs = 2\noptimiser = { momentum = 1.0 }", "optimiser.momentum"),
        ("[train]", "[split]\ntest = 1.5\n[train]", "split.test"),
        ("[train]", '[model]\ntop = { kind = "mlp" }\n[train]', "model.top.hidden"),
        ("[train]", '[model]\ntop = { kind = "forest" }\n[train]', "model.top.kind"),
        ("[train]", '[model]\ntop = { kind = "mlp", hidden = [0] }\n[train]', "at least one neuron"),
        ("[train]", '[model]\nlayout = "embeddings"\n[train]', "model.bottom is missing"),
        ("[train]", "[model]\nbottom = { out = 3 }\n[train]", "model.bottom is for layout embeddings"),
        (
            "[train]",
            '[model]\nlayout = "embeddings"\nbottom = { out = 3 }\n[train]',
            "layout embeddings sends back errors that show labels",
        ),
        ("[train]", '[protection]\ncut_noise = { method = "none" }\n[train]', "layout features sends no error"),
        (
            "[train]",
            (
                '[model]\nlayout = "embeddings"\nbottom = { out = 3 }\n'
                '[protection]\ncut_noise = { method = "isotropic" }\n[train]'
            ),
            "scale goes with isotropic",
        ),
    ],
)
def test_a_specification_that_contradicts_itself_is_refused_by_name(old, new, message):
    with pytest.raises(SpecError, match=message.replace(".", r"\.")):
        read_spec_as(TrainingSpec, SPEC.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs = 2", "epochs = 'two'", "Expected a whole number and found text - at `train.epochs` (line 16)"),
        (
            "epochs = 2",
            "epochs = 2.5",
            "Expected a whole number and found a decimal number - at `train.epochs` (line 16)",
        ),
        ("epochs = 2", "epocs = 2", "unknown field `epocs` - at `train` (line 16)"),
        ("epochs = 2", "epochs = -5", "train.epochs must be at least 1 (line 16)"),
        ("[train]", "[training]", "unknown field `training` (line 15)"),
        ('task = "binary"', 'task = "ranking"', "Invalid enum value 'ranking' - at `job.task` (line 4)"),
        (
            "epochs = 2",
            "epochs = 2\noptimiser = { rate = true }",
            "found true or false - at `train.optimiser.rate` (line 17)",
        ),
        ("batch_rows = 64", "", "missing required field `batch_rows` - at `train` (line 15)"),
        # Which party's it is msgspec does not say.
        ('columns = ["calls"]', 'columns = "calls"', "Expected a list and found text - at `data[...].columns`"),
        ('columns = ["calls"]', "colums = []", "unknown field `colums` - at `data[...]` (line 14)"),
    ],
)
def test_what_does_not_fit_is_told_in_plain_words_with_its_line_where_that_is_certain(old, new, told):
    with pytest.raises(SpecError) as refused:
        read_spec_as(TrainingSpec, SPEC.replace(old, new, 1))
    assert str(refused.value).endswith(told)


def test_a_typing_slip_is_answered_with_the_nearest_key():
    with pytest.raises(SpecError) as raised:
        read_spec_as(TrainingSpec, SPEC.replace("batch_rows", "batch_row"))
    assert raised.value.fix == "Did you mean `batch_rows`?"


@pytest.mark.parametrize(
    ("old", "new", "fix"),
    [
        ("epochs = 2", "epochs = 2\nwarmth = 3", "The keys here are epochs, batch_rows, "),
        (
            "[train]",
            '[encryption]\nscheme = "ckks"\nfraction_bits = 12\n[train]',
            "Leave `fraction_bits` out: it belongs to another encryption",
        ),
        ("[train]", "[split]\nweight_limit = 3\n[train]", "Leave `weight_limit` out: it belongs to another table"),
        ('label = "default"', 'label = "default"\nowner = 1', "The keys here are dataset, "),
        ('task = "binary"', 'task = "ranking"', "Use one of binary, multiclass, regression, none."),
        ("[train]", '[model]\ntop = { kind = "forest" }\n[train]', "Use one of linear, mlp."),
        ("epochs = 2", 'epochs = 2\noptimiser = { name = "lion" }', "Use one of sgd, adam."),
        (SPEC, "", "Add `job`. `vfl demo` leaves a whole specification, `job.toml`, in its folder."),
        ('name = "credit"', "", "Add `name`."),
    ],
)
def test_a_key_or_value_that_does_not_exist_is_answered_with_those_there_are(old, new, fix):
    with pytest.raises(SpecError) as refused:
        read_spec_as(TrainingSpec, SPEC.replace(old, new, 1))
    assert refused.value.fix.startswith(fix)


def test_an_unknown_encryption_scheme_is_answered_with_those_there_are():
    with pytest.raises(SpecError, match="bfv") as refused:
        read_spec_as(TrainingSpec, SPEC + '[encryption]\nscheme = "bfv"\n')
    assert refused.value.fix == "Use one of ckks, paillier, none."


def test_sums_under_two_keys_do_not_add_so_ckks_takes_one_feature_party():
    two = SPEC.replace('["telco-b"]', '["telco-b", "telco-c"]')
    two += '[data.telco-c]\ndataset = "x"\ncolumns = ["c"]\n'
    with pytest.raises(SpecError, match="one feature party"):
        read_spec_as(TrainingSpec, two)
    assert read_spec_as(TrainingSpec, two + '[encryption]\nscheme = "none"\n').outputs == 1


@pytest.mark.parametrize(
    ("sender", "receiver", "kind", "legal"),
    [
        ("telco-b", "bank-a", "EncryptedEmbedding", True),
        ("bank-a", "telco-b", "EncryptedEmbedding", False),
        ("bank-a", "telco-b", "MaskedGradient", True),
        ("telco-b", "bank-a", "Embedding", False),
        ("telco-b", "telco-b", "OpenedGradient", False),
        ("stranger", "bank-a", "OpenedGradient", False),
        ("telco-b", "bank-a", "DecryptThis", False),
    ],
)
def test_only_listed_routes_are_legal(sender, receiver, kind, legal):
    assert allowed(read_spec_as(TrainingSpec, SPEC), sender, receiver, kind) is legal
