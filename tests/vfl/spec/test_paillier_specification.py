"""`encryption.scheme = "paillier"`: what a specification may ask of it, and what is said where its extra is missing."""

import sys

import pytest

from vfl.errors import NotAvailable, PaillierMissing, SpecError
from vfl.kinds import kind_of, read_spec_as
from vfl.planning.training import plan, resolve
from vfl.spec.encryption import PaillierEncryption
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
batch_rows = 256
[encryption]
scheme = "paillier"
"""


@pytest.fixture
def without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "phe", None)


def test_keys_have_3072_bits_and_numbers_12_behind_the_point_unless_the_specification_says_otherwise():
    spec = read_spec_as(TrainingSpec, SPEC)
    assert spec.encryption == PaillierEncryption(key_bits=3072, fraction_bits=12)
    spec = read_spec_as(TrainingSpec, f"{SPEC}key_bits = 2048\nfraction_bits = 16\n")
    assert spec.encryption == PaillierEncryption(key_bits=2048, fraction_bits=16)
    assert [route.message.kind() for route in kind_of(spec).routes(spec)][2:4] == ["PaillierKey", "EncryptedRows"]


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("key_bits = 1024", "between 2048 and 8192"),
        ("key_bits = 2050", "multiple of 128"),
        ("key_bits = 16384", "between 2048 and 8192"),
        ("fraction_bits = 4", "between 8 and 16"),
        ("loss_error = 'cubic'", "loss_error"),
        ("values_per_key = 5", "values_per_key"),
    ],
)
def test_small_keys_and_settings_of_another_scheme_are_refused(addition, message):
    with pytest.raises(SpecError, match=message):
        read_spec_as(TrainingSpec, f"{SPEC}{addition}\n")


@pytest.mark.parametrize(
    ("addition", "named"),
    [
        ('[model]\ntop = { kind = "mlp", hidden = [4] }', "model.top.kind = mlp"),
        (
            '[model]\nlayout = "embeddings"\nbottom = { out = 2 }\n[protection]\ncut_noise = { method = "none" }',
            "model.layout = embeddings",
        ),
        ("[split]\nvalidation = 0.1", "split.validation"),
    ],
)
def test_what_is_trained_on_ckks_ciphertexts_alone_is_refused_by_name(addition, named):
    with pytest.raises(NotAvailable, match=f"scheme paillier does not go with {named}") as refused:
        read_spec_as(TrainingSpec, f"{SPEC}{addition}\n")
    assert "encryption.scheme = ckks" in refused.value.fix


def test_weights_of_classes_are_refused_by_name():
    with pytest.raises(NotAvailable, match=r"train\.class_weights"):
        read_spec_as(TrainingSpec, SPEC.replace("batch_rows = 256", 'batch_rows = 256\nclass_weights = "balanced"'))


def test_without_the_extra_neither_side_begins_and_both_say_what_to_install(without_the_extra):
    spec = read_spec_as(TrainingSpec, SPEC)
    for begin in (resolve, lambda spec: plan(spec, 2000)):
        with pytest.raises(PaillierMissing, match=r"needs .*phe.*, and this installation is without") as refused:
            begin(spec)
        assert "Install the extra `paillier`" in refused.value.fix


def test_without_the_extra_other_schemes_are_planned_as_ever(without_the_extra):
    for scheme in ("ckks", "none"):
        spec = resolve(read_spec_as(TrainingSpec, SPEC.replace("paillier", scheme)))
        assert plan(spec, 2000).steps == 12
