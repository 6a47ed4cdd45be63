"""Ways to the label party's weights out of what goes back to the key owner, against builds that leave an answer out.

Named in ckks_training.md: the second polynomial of a linear combination (test_ckks_rules.py, rule 1), a
public key with a random half of its owner's choice, the third polynomial of a raw product, ciphertext noise in the
imaginary halves of what the key owner decrypts whole.
"""

import numpy as np
import pytest
from coefficient_scores import encrypt_coefficients, mask_scores, scores
from tenseal import sealapi

from crypto.ciphertexts import read_words
from crypto.ckks import CkksPrivateKey, repeats
from crypto.ckks_context import contexts_of, secret_under
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import CUT_SCALE, PRESETS, RING_DEGREE, SLOTS
from crypto.ckks_sums import EncryptedSums
from crypto.noise import gaussian
from crypto.ring import block_coefficients, centred
from crypto.seal_stream import ciphertext_payload, identifier, load, read_ciphertext, stream

PRESET = PRESETS["ckks-linear"]
Q = PRESET.data_moduli[0]
LARGEST_ERROR = 60


class UnderTrapdooredKey(CkksPublicKey):
    """Accepts a whole public key: this one has a zero random half, so its encryptions of zero hide nothing."""

    def __init__(self, preset, material, values):
        super().__init__(preset, material, values)
        context = self._contexts.public
        words = np.zeros((2, len(context.moduli), RING_DEGREE), np.uint64)
        words[0] = 1
        body = stream(ciphertext_payload(context.key_identifier, 1.0, words))
        self._encryptor = sealapi.Encryptor(context.seal, load(sealapi.PublicKey(), context.seal, body))


@pytest.mark.parametrize(("kind", "recovered"), [(UnderTrapdooredKey, True), (CkksPublicKey, False)])
def test_a_public_key_of_the_owners_choice_gives_a_weight_away(kind, recovered):
    """One column: c1 of the score is weight x c1 of the column, plus small noise where the random half is zero."""
    private = CkksPrivateKey(PRESET, 200)
    public = kind(PRESET, private.public_material(1), 1)
    weight = 0.73
    (column,) = public.load(encrypt_coefficients(private, np.ones((5, 1))), 1, 5, 1)
    known = coefficients(read_ciphertext(column.ciphertext)[1, 0])
    masked, _ = mask_scores(public, scores(public, [column], np.array([[weight]])))
    sent = coefficients(read_words(memoryview(masked.packed), (Q,), RING_DEGREE)[0])
    expected = round(weight * 2.0 ** (PRESET.sum_scale - PRESET.embedding_scale))
    inverse = pow(known[0], -1, Q)
    candidates = {(sent[0] - error) * inverse % Q for error in range(-LARGEST_ERROR, LARGEST_ERROR + 1)}
    fitting = {
        candidate
        for candidate in candidates
        if all(
            abs(centred((s - candidate * k) % Q, Q)) <= LARGEST_ERROR for s, k in zip(sent[:50], known, strict=False)
        )
    }
    assert fitting == ({expected} if recovered else set())


def coefficients(words):
    return block_coefficients([int(word) for word in words], RING_DEGREE, Q)


def one_step(rows=SLOTS):
    """(private, public, embedding, error) of a linear step with one column."""
    private = CkksPrivateKey(PRESET, 200)
    public = CkksPublicKey(PRESET, private.public_material(1), 1)
    column = np.random.Generator(np.random.Philox(2)).normal(size=(rows, 1))
    times = repeats(rows)
    embedding = public.load(private.encrypt_rows(column, times), 1, rows, times)
    return private, public, embedding, public.weighted_sum(embedding, np.array([0.3]), np.zeros(rows))


def test_a_raw_products_third_polynomial_would_give_the_bare_error_ciphertext_away():
    """c2 = c1(error) c1(z): the key owner divides by its own c1(z). A fresh zero has no third polynomial over it."""
    _, public, embedding, error = one_step()
    sums = EncryptedSums(1)
    public.add_products(sums, [(error, embedding[0])])
    raw = read_ciphertext(sums.ciphertexts[0])
    assert len(raw) == 3
    own = read_ciphertext(public._at(embedding[0].ciphertext, 1))[1, 0]
    bare = read_ciphertext(error.ciphertext)[1, 0]
    divided = [int(c) * pow(int(k), -1, Q) % Q for c, k in zip(raw[2, 0, :64], own[:64], strict=True)]
    assert divided == [int(word) for word in bare[:64]]


def test_ours_sends_one_polynomial_of_a_relinearised_and_re_randomised_sum():
    private, public, embedding, error = one_step()
    sums = EncryptedSums(1)
    public.add_products(sums, [(error, embedding[0])])
    masked, _ = public.mask_sums(sums)
    assert len(masked.packed) == 8 * RING_DEGREE
    assert len(masked.masked) == 8
    own = read_ciphertext(public._at(embedding[0].ciphertext, 1))[1, 0]
    bare = read_ciphertext(error.ciphertext)[1, 0]
    sent = read_words(memoryview(masked.packed), (Q,), RING_DEGREE)[0]
    products = np.array([int(a) * int(b) % Q for a, b in zip(own, bare, strict=True)], np.uint64)
    assert not (sent == products).any()
    assert not (sent == bare).any()
    assert private.values_left == 200


def imaginary_power(weight, deviation):
    """Mean square of the imaginary halves the key owner decrypts when it is handed a cut error whole."""
    private, public, _, _ = one_step()
    column = np.random.Generator(np.random.Philox(2)).normal(size=(SLOTS, 1))
    embedding = public.load(private.encrypt_rows(column, 1), 1, SLOTS, 1)
    error = public.weighted_sum(embedding, np.array([weight]), np.zeros(SLOTS))
    noise = gaussian((SLOTS, 1), deviation) + 1j * gaussian((SLOTS, 1), deviation)
    sent = public.cut_errors([error], np.array([[1.0]]), noise)
    context = contexts_of(PRESET).release
    words = read_words(memoryview(sent), (Q, Q), RING_DEGREE).reshape(2, 1, RING_DEGREE)
    plain = sealapi.Plaintext()
    body = stream(ciphertext_payload(identifier(context.levels[0]), 2.0**CUT_SCALE, words))
    sealapi.Decryptor(context.seal, secret_under(private._secret, context)).decrypt(
        load(sealapi.Ciphertext(), context.seal, body), plain
    )
    return float(np.mean(np.imag(context.encoder.decode_complex(plain)) ** 2))


def test_bare_ciphertext_noise_in_imaginary_halves_tells_how_large_weights_are_and_complex_noise_hides_it():
    """A weight multiplies the noise of the ciphertext it meets, and nothing else is in the imaginary halves."""
    assert imaginary_power(8.0, 0.0) > 1.5 * imaginary_power(0.1, 0.0)
    assert imaginary_power(8.0, 1.0) == pytest.approx(imaginary_power(0.1, 1.0), rel=0.15)
    assert imaginary_power(0.1, 1.0) > 1e6 * imaginary_power(0.1, 0.0)
