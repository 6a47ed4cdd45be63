"""Ways to the secret key that answers open, each against a key owner that gives them and against ours.

Named in ckks_training.md and threat_model.md: returned slot vectors (Li and Micciancio, "On the security of
homomorphic encryption on approximate numbers", EUROCRYPT 2021), exact coefficients, exact sums (test_ckks_rules.py,
rule 3).
"""

from dataclasses import replace

import numpy as np
import pytest
from coefficient_scores import encrypt_coefficients, mask_scores, score_groups, scores
from tenseal import sealapi

from crypto.ckks import CkksPrivateKey
from crypto.ckks_context import contexts_of, secret_under
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS, RING_DEGREE
from crypto.errors import KeyUsedUp
from crypto.ring import block_coefficients, centred
from crypto.seal_stream import read_ciphertext, read_plain_words

PRESET = PRESETS["ckks-linear"]
Q = PRESET.data_moduli[0]


def both_ends(preset, values_per_key=2 * RING_DEGREE):
    private = CkksPrivateKey(preset, values_per_key)
    return private, CkksPublicKey(preset, private.public_material(1), 1)


def scored(private, public, rows, seed):
    """A score ciphertext at the last level: what an evaluator holds before it asks for anything."""
    columns = np.random.Generator(np.random.Philox(seed)).normal(size=(rows, 1)).clip(-3, 3)
    (score,) = scores(public, public.load(encrypt_coefficients(private, columns), 1, rows, 1), np.ones((1, 1)))
    return score


def slots_decrypted(private, ciphertext):
    """What a key owner returns who decrypts on request: every slot as a float."""
    context = contexts_of(PRESET).release
    plain = sealapi.Plaintext()
    sealapi.Decryptor(context.seal, secret_under(private._secret, context)).decrypt(ciphertext, plain)
    return np.array(context.encoder.decode_double(plain))


def test_two_returned_slot_vectors_give_the_whole_key():
    """A real vector shows m + conj(m); two of them are a 2 x 2 system per pair of conjugate words."""
    private, public = both_ends(PRESET)
    context, secret = contexts_of(PRESET).release, private._secret[Q]
    seen = []
    for seed in (1, 2):
        column = np.random.Generator(np.random.Philox(seed)).normal(size=(50, 1))
        (vector,) = public.load(private.encrypt_rows(column, 1), 1, 50, 1)
        ciphertext = public._at(vector.ciphertext, 1)
        slots = slots_decrypted(private, ciphertext)
        doubled = read_plain_words(context.encode((2 * slots).tolist(), 1, ciphertext.scale))
        words = read_ciphertext(ciphertext)[:, 0]
        seen.append(
            (
                words[1],
                [(int(k) - int(x) - int(y)) % Q for k, x, y in zip(doubled, words[0], words[0][::-1], strict=True)],
            )
        )
    (a, first), (b, second) = seen
    found = 0
    for i in range(0, RING_DEGREE, 64):
        conjugate = RING_DEGREE - 1 - i
        a1, a2, b1, b2 = int(a[i]), int(a[conjugate]), int(b[i]), int(b[conjugate])
        determinant = (a1 * b2 - a2 * b1) % Q
        word = (first[i] * b2 - a2 * second[i]) * pow(determinant, -1, Q) % Q
        found += word == int(secret[i])
    assert found == RING_DEGREE // 64


@pytest.mark.parametrize(("noise", "recovered"), [(0.0, True), (PRESET.noise, False)])
def test_all_coefficients_of_one_answer_give_the_whole_key_unless_they_carry_noise(noise, recovered):
    preset = replace(PRESET, noise=noise)
    private, public = both_ends(preset)
    score = scored(private, public, RING_DEGREE, 3)
    public.prepare_zeros(1)
    total = sealapi.Ciphertext()
    public._zeros[0].scale = score.ciphertext.scale
    contexts_of(preset).release.evaluator.add(public._zeros[0], score.ciphertext, total)
    masked, mask = mask_scores(public, [score])
    opened = np.frombuffer(private.open(masked, score_groups(RING_DEGREE, 1)), "<u8")
    plain = [(int(value) - number) % Q for value, number in zip(opened, mask.numbers, strict=True)]
    first, second = read_ciphertext(total)[:, 0]
    secret = private._secret[Q]
    # The message in NTT form, from its coefficients: solve c0 + c1 s = m word by word, compared through coefficients.
    candidate = [(int(a) + int(b) * int(s)) % Q for a, b, s in zip(first, second, secret, strict=True)]
    exact = block_coefficients(candidate, RING_DEGREE, Q)
    differences = [abs(centred((x - y) % Q, Q)) for x, y in zip(plain, exact, strict=True)]
    assert (max(differences) == 0) is recovered
    if not recovered:
        assert np.std(differences) > 2.0 ** (PRESET.noise - 2)


def test_ours_returns_the_agreed_values_only_and_none_beyond_its_cap():
    """There is no call that returns slots, and a reply has as many integers as rows were asked for."""
    private, public = both_ends(PRESET, values_per_key=60)
    masked, _ = mask_scores(public, [scored(private, public, 50, 4)])
    assert len(private.open(masked, score_groups(50, 1))) == 8 * 50
    with pytest.raises(KeyUsedUp):
        private.open(masked, score_groups(50, 1))
    returning = {name for name in dir(private) if not name.startswith("_")}
    assert returning == {
        "decrypt_cut",  # for the key owner's own bottom model; ckks_training sends nothing made of it
        "encrypt_rows",
        "open",
        "operations",
        "public_material",
        "values_left",
    }
