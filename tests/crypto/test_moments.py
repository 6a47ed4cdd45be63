"""Sums over rows under a key of the label party: exact before noise, and each rule with the attack that it answers."""

import itertools
import pickle  # noqa: TID251 - to show that a key refuses it
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import crypto.moments
from crypto.errors import InvalidCiphertext
from crypto.moments import Block, ColumnsKey, EncryptedColumns, RunningSums, SumsOfProducts
from crypto.moments_parameters import (
    DEGREE,
    FEATURE_BITS,
    FLOODING_BITS,
    MODULUS,
    MOST_BLOCK_ROWS,
    MOST_ROWS,
    MomentsScale,
    answer_bytes,
    block_bytes,
    key_bytes,
)
from crypto.polynomials import Stack, _context, shared_polynomial, to_words
from crypto.seal_stream import read_ciphertext

Integers = NDArray[np.int64]
COLUMNS, WIDTH = 3, 2
RNG = np.random.default_rng(7)


def numbers(rows: int, columns: int, bits: int) -> Integers:
    return np.rint(RNG.uniform(-1.7, 1.7, (rows, columns)) * 2.0**bits).astype(np.int64)


class Parties:
    """Both ends over some blocks of rows."""

    def __init__(self, block_rows: list[int], columns: int = COLUMNS, width: int = WIDTH) -> None:
        self.scale = MomentsScale(sum(block_rows))
        self.x = [numbers(rows, columns, self.scale.label_bits) for rows in block_rows]
        self.z = [numbers(rows, width, FEATURE_BITS) for rows in block_rows]
        self.width = width
        self.key = ColumnsKey(columns, self.scale)
        self.feature = EncryptedColumns(self.key.public, columns, width, self.scale)
        self.sent = [self.key.encrypt(number, x) for number, x in enumerate(self.x, 1)]

    def answer(self) -> SumsOfProducts:
        sums = RunningSums(self.feature)
        for number, (sent, z) in enumerate(zip(self.sent, self.z, strict=True), 1):
            sums.add(self.feature.block(number, sent, z))
        return sums.answer()

    def expected(self) -> NDArray[np.object_]:
        return np.asarray(sum(z.T.astype(object) @ x.astype(object) for x, z in zip(self.x, self.z, strict=True)))


def polynomial(seed: bytes, number: int) -> list[int]:
    """The shared polynomial of a block, as coefficients: that of 1 times it."""
    one = np.zeros((1, DEGREE), np.uint64)
    one[0, 0] = 1
    return [int(word) for word in Stack.of(one).times(shared_polynomial(seed, number)).words()[0]]


@pytest.fixture
def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto.moments, "gaussian", lambda shape, deviation: np.zeros(shape))


@pytest.fixture
def without_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto.moments, "_errors", lambda shape: np.zeros(shape, np.int64))


@pytest.mark.parametrize(
    ("block_rows", "columns", "width"), [([1], 1, 1), ([5, 40, 7], 3, 2), ([MOST_BLOCK_ROWS, 300], 2, 17)]
)
@pytest.mark.usefixtures("without_noise", "without_errors")
def test_opened_sums_are_those_of_integers_exactly(block_rows: list[int], columns: int, width: int) -> None:
    parties = Parties(block_rows, columns, width)
    assert (parties.key.open(parties.answer(), width) == parties.expected()).all()


@pytest.mark.usefixtures("without_noise")
def test_what_the_errors_add_is_far_below_the_noise_that_covers_it() -> None:
    parties = Parties([2000, 2000])
    apart = (parties.key.open(parties.answer(), WIDTH) - parties.expected()).astype(float)
    assert 0 < np.abs(apart).max() < 8 * parties.scale.error_deviation


def test_an_opened_sum_has_the_noise_that_the_parameters_say() -> None:
    parties = Parties([50], 20, 20)
    apart = (parties.key.open(parties.answer(), 20) - parties.expected()).astype(float)
    assert apart.std() == pytest.approx(2.0**FLOODING_BITS * parties.scale.error_deviation, rel=0.2)


def test_the_product_of_a_stack_is_that_of_polynomials_in_integers() -> None:
    seed, small = bytes(32), np.zeros((1, DEGREE), np.int64)
    small[0, [0, 1, DEGREE - 1]] = 3, -2, 1
    a = polynomial(seed, 5)
    expected = [0] * DEGREE
    for place, factor in ((0, 3), (1, -2), (DEGREE - 1, 1)):
        for at, coefficient in enumerate(a):
            sign = 1 if at + place < DEGREE else -1
            expected[(at + place) % DEGREE] += sign * factor * coefficient
    product = Stack.of(to_words(small)).times(shared_polynomial(seed, 5)).words()[0]
    assert [int(word) for word in product] == [number % MODULUS for number in expected]


def test_shared_polynomials_are_uniform_and_differ_by_seed_and_number() -> None:
    drawn = [polynomial(seed, number) for seed, number in itertools.product([bytes(32), b"1" * 32], [0, 1])]
    for words in drawn:
        assert np.mean(np.array(words, float) / MODULUS) == pytest.approx(0.5, abs=0.03)
    assert len({tuple(words) for words in drawn}) == 4


def test_bytes_are_as_many_as_the_forecast_says() -> None:
    parties = Parties([30])
    answer = parties.answer()
    assert (len(answer.polynomials), len(answer.words)) == answer_bytes(COLUMNS, WIDTH)
    assert len(parties.sent[0]) == block_bytes(30, COLUMNS)
    assert len(parties.key.public) == key_bytes(COLUMNS)


def divided(product: NDArray[np.uint64], a: list[int], rows: int) -> list[int] | None:
    """The column z of a product a z modulo X^N + 1 and q, by elimination over its first rows; None if it is no such
    product of small numbers."""

    # z stands at X^0, X^-1, ...: coefficient c of the product is the sum of a[c + i] z_i, with a sign beyond the end.
    def a_at(place: int) -> int:
        return a[place] if place < DEGREE else -a[place - DEGREE]

    system = [[a_at(c + i) % MODULUS for i in range(rows)] + [int(product[c])] for c in range(rows)]
    for column in range(rows):
        pivot = next(row for row in range(column, rows) if system[row][column])
        system[column], system[pivot] = system[pivot], system[column]
        inverse = pow(system[column][column], -1, MODULUS)
        system[column] = [value * inverse % MODULUS for value in system[column]]
        for row in range(rows):
            factor = system[row][column]
            if row != column and factor:
                system[row] = [(v - factor * p) % MODULUS for v, p in zip(system[row], system[column], strict=True)]
    solved = [row[-1] - MODULUS if row[-1] > MODULUS // 2 else row[-1] for row in system]
    return solved if max(map(abs, solved)) < 1 << 20 else None


class WithoutZero(RunningSums):
    """A feature party that adds no encryption of zero, and no errors to its polynomials."""

    def __init__(self, key: EncryptedColumns, first: Block) -> None:
        super().__init__(key)
        self._polynomials, self._digits = first


ROWS = 24


@pytest.mark.usefixtures("without_errors")
def test_without_a_fresh_zero_the_polynomials_give_every_row_of_the_feature_party() -> None:
    parties = Parties([ROWS])
    seed = parties.key.public[:32]
    sums = WithoutZero(parties.feature, parties.feature.block(1, parties.sent[0], parties.z[0]))
    products = np.frombuffer(sums.answer().polynomials, "<u8").reshape(WIDTH, DEGREE)
    a = polynomial(seed, 1)
    for column in range(WIDTH):
        # The place beside the rows holds a one.
        assert divided(products[column], a, ROWS + 1) == [*parties.z[0][:, column].tolist(), 1]


@pytest.mark.usefixtures("without_errors")
def test_a_fresh_zero_leaves_no_row_in_the_polynomials() -> None:
    parties = Parties([ROWS])
    products = np.frombuffer(parties.answer().polynomials, "<u8").reshape(WIDTH, DEGREE)
    a = polynomial(parties.key.public[:32], 1)
    assert [divided(products[column], a, ROWS + 1) for column in range(WIDTH)] == [None] * WIDTH


def transformed(words: NDArray[np.uint64]) -> Any:
    """A polynomial (1 x N) as one that others are multiplied by."""
    return _context().plain_words(read_ciphertext(Stack.of(words).parts[0])[0], 1)


def spectrum(coefficients: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Values of a polynomial modulo X^N + 1 at the roots of that."""
    return np.asarray(np.fft.fft(coefficients * np.exp(-1j * np.pi * np.arange(DEGREE) / DEGREE)))


def reconstructed(whole: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows z of x(X) z(1 / X), where x is known."""
    quotient = np.fft.ifft(spectrum(whole) / spectrum(x)) * np.exp(1j * np.pi * np.arange(DEGREE) / DEGREE)
    turned = quotient.real
    return np.concatenate([turned[:1], -turned[:0:-1]])


@pytest.mark.usefixtures("without_errors")
def test_whole_ciphertexts_would_give_every_row_and_numbers_for_each_pair_do_not() -> None:
    """The label party knows its own column. Of the whole product it reads as many numbers as there are rows."""
    parties = Parties([MOST_BLOCK_ROWS], 1, 1)
    z, x, secret = parties.z[0][:, 0], np.zeros(DEGREE), parties.key._secrets[:1]
    x[:-1] = parties.x[0][:, 0]
    turned = np.zeros((1, DEGREE), np.int64)
    turned[0, 0], turned[0, 1], turned[0, 2:] = z[0], -1, -z[:0:-1]  # the place beside the rows holds a one
    own = Stack.of(to_words(turned))

    first = own.times(transformed(np.frombuffer(parties.sent[0], "<u8").reshape(2, DEGREE)[:1])).words()[0]
    second = own.times(shared_polynomial(parties.key.public[:32], 1)).words()
    mask = Stack.of(to_words(secret)).times(transformed(second)).words()[0]
    whole = [(int(c) - int(m)) % MODULUS for c, m in zip(first, mask, strict=True)]
    centred = np.array([number - MODULUS if number > MODULUS // 2 else number for number in whole], float)
    assert np.abs(reconstructed(centred, x)[:-1] - z).max() < 2.0**FEATURE_BITS / 100

    opened = float(parties.key.open(parties.answer(), 1)[0, 0])
    nearest = x[:-1] * opened / (x @ x)  # the rows of least squares that give this sum
    assert abs(np.corrcoef(nearest, z)[0, 1]) < 0.1


class WithoutCheck(ColumnsKey):
    """A label party that does not look at its check column."""

    def open(self, sums: SumsOfProducts, width: int) -> NDArray[np.object_]:
        return self._decrypted(sums, width)[:, :-1]


def with_wild_columns(key: type[ColumnsKey]) -> tuple[Parties, SumsOfProducts]:
    """A feature party whose columns are thousands of times as large as agreed, and are those of the other party."""
    parties = Parties([2000])
    parties.key = key(COLUMNS, parties.scale)
    parties.feature = EncryptedColumns(parties.key.public, COLUMNS, WIDTH, parties.scale)
    parties.sent = [parties.key.encrypt(1, parties.x[0])]
    parties.z = [(parties.x[0][:, :WIDTH] >> (parties.scale.label_bits - FEATURE_BITS)) << 3]
    return parties, parties.answer()


def test_without_the_check_column_sums_that_wrap_around_pass_as_sums() -> None:
    parties, answer = with_wild_columns(WithoutCheck)
    apart = parties.key.open(answer, WIDTH) - parties.expected()
    assert max(abs(number) for number in apart.ravel()) > MODULUS // 2


def test_the_check_column_tells_sums_that_wrapped_around() -> None:
    parties, answer = with_wild_columns(ColumnsKey)
    with pytest.raises(InvalidCiphertext, match="wrapped around"):
        parties.key.open(answer, WIDTH)


def test_the_check_column_tells_a_sum_that_was_moved() -> None:
    parties = Parties([2000])
    answer = parties.answer()
    words = np.frombuffer(answer.words, "<u8").copy()
    words[0] = (int(words[0]) + (1 << 58)) % MODULUS
    with pytest.raises(InvalidCiphertext, match="not sums over the columns"):
        parties.key.open(answer._replace(words=words.tobytes()), WIDTH)


def test_bytes_that_no_honest_party_sends_are_refused() -> None:
    parties = Parties([30])
    answer, large = parties.answer(), b"\xff" * 8
    with pytest.raises(InvalidCiphertext, match="bytes"):
        parties.key.open(answer._replace(words=answer.words[:-8]), WIDTH)
    with pytest.raises(InvalidCiphertext, match="below its prime"):
        parties.key.open(answer._replace(words=answer.words[:-8] + large), WIDTH)
    with pytest.raises(InvalidCiphertext, match="zero"):
        parties.key.open(answer._replace(polynomials=bytes(len(answer.polynomials))), WIDTH)
    with pytest.raises(InvalidCiphertext, match="key"):
        EncryptedColumns(parties.key.public[:-8], COLUMNS, WIDTH, parties.scale)
    with pytest.raises(InvalidCiphertext, match="rows"):
        parties.feature.block(1, parties.sent[0][:-8], parties.z[0])
    with pytest.raises(InvalidCiphertext, match="below its prime"):
        parties.feature.block(1, parties.sent[0][:-8] + large, parties.z[0])


def test_the_key_neither_prints_nor_pickles() -> None:
    key = Parties([5]).key
    assert repr(key) == "ColumnsKey(...)"
    with pytest.raises(TypeError, match="stays in the process"):
        pickle.dumps(key)


def test_sums_of_standardised_columns_cannot_wrap_whatever_their_number() -> None:
    for rows in (1, 455, 24_000, 1_000_000, MOST_ROWS):
        scale = MomentsScale(rows)
        assert scale.fits
        assert rows * scale.unit + 8 * scale.flooding < MODULUS / 2
