"""What the aggregator and colluders below the threshold learn of a secure sum: the sum, and no more.

Each attack is also run where it must succeed.
"""

import itertools

import numpy as np
from sum_federation import Group, run, terms, vectors

from crypto.errors import InvalidShare
from crypto.masking import add_mask, modulo, pack, subtract_mask, unpack
from crypto.pair_keys import fresh_private_key, mask_seed, public_key
from crypto.secret_sharing import SHARE_BYTES, secret_of, shares_of
from vfl.messages import MaskedReply, UnmaskTask


def attack(given, colluders, leaked=()):
    """All the aggregator and `colluders` can do: returns, by honest client, what is left of its words under masks.

    `leaked` are honest clients that gave the aggregator both kinds of share, against the rules.
    """
    agreed, key_list = given.agreed, given.side._keys
    arrived = UnmaskTask(1, agreed.roster)
    pools: dict[str, dict[str, dict[int, bytes]]] = {kind: {me: {} for me in agreed.roster} for kind in ("seed", "key")}
    for holder, member in given.members.items():
        index = key_list.index(holder)
        for owner, shares in member._shares.items():
            pools["seed"][owner][index] = shares[:SHARE_BYTES]
            if holder in colluders or holder in leaked:
                pools["key"][owner][index] = shares[SHARE_BYTES:]
        member.unmask(arrived)
    left = {}
    for victim in (me for me in agreed.roster if me not in colluders):
        words = unpack(given.masked[victim].words, agreed.word_bits).copy()
        subtract_mask(words, secret_of(dict(list(pools["seed"][victim].items())[: agreed.threshold])))
        known = {me: given.members[me]._masking for me in colluders}
        try:
            guess = secret_of(dict(list(pools["key"][victim].items())[: agreed.threshold]))
        except InvalidShare:
            guess = None
        if guess is not None and public_key(guess) == key_list.keys[victim].masking:
            known = dict.fromkeys((me for me in agreed.roster if me != victim), guess)
        for peer, private in known.items():
            own = (victim, peer) if private is guess else (peer, victim)
            seed = mask_seed(private, key_list, *own)
            first = key_list.index(victim) < key_list.index(peer)
            (subtract_mask if first else add_mask)(words, seed)
        left[victim] = modulo(words, agreed.word_bits)
    return left


def test_colluders_below_the_threshold_with_the_aggregator_learn_the_sum_of_the_honest_and_no_vector():
    """21 clients, threshold 11, ten of them with the aggregator: what is left of an honest vector is uniform."""
    agreed = terms(21, words=4096)
    same = {me: np.full(agreed.words, 12345, np.uint64) for me in agreed.roster}
    left = attack(Group(agreed, same).deal().mask(), colluders=agreed.roster[:10])
    assert len(left) == 11
    for words in left.values():
        assert is_uniform(words.astype("<u2"))
    for one, other in itertools.combinations(left.values(), 2):
        assert np.mean(one == other) < 0.01
    assert np.array_equal(modulo(sum(left.values()), agreed.word_bits), np.full(agreed.words, 11 * 12345 % 2**16))


def test_the_attack_reads_every_vector_once_a_threshold_of_holders_gives_both_kinds():
    """The control: one honest holder that breaks the rule lifts ten colluders to the threshold of eleven."""
    agreed = terms(21, words=64)
    given = vectors(agreed)
    left = attack(Group(agreed, given).deal().mask(), colluders=agreed.roster[:10], leaked=agreed.roster[10:11])
    assert all(np.array_equal(words, given[me]) for me, words in left.items())


def is_uniform(words):
    """Chi-square of the bytes against 6 standard deviations."""
    counts = np.bincount(words.view(np.uint8), minlength=256)
    chi_square = float(np.sum((counts - counts.mean()) ** 2) / counts.mean())
    return abs(chi_square - 255) < 6 * np.sqrt(2 * 255)


def test_a_transcript_holds_no_piece_of_a_vector_and_only_uniform_words():
    agreed = terms(4, words=8192)
    given = {me: np.full(agreed.words, number, np.uint64) for number, me in enumerate(agreed.roster)}
    together = run(agreed, given)
    for sent in together.transcript:
        if isinstance(sent.message, MaskedReply):
            words = np.frombuffer(sent.message.words, "<u2")
            assert is_uniform(words)
            assert pack(given[sent.sender][:8], agreed.word_bits) not in sent.message.words


def test_a_transcript_without_the_last_step_says_as_little_about_one_input_as_about_another():
    """What the aggregator holds of one client before shares come: correlated with none of two opposite inputs."""
    agreed = terms(4, words=1 << 14)
    low, high = np.zeros(agreed.words, np.uint64), np.full(agreed.words, 2**15, np.uint64)
    half = np.random.default_rng(1).permutation(np.concatenate([low[::2], high[::2]]))
    given = Group(agreed, dict.fromkeys(agreed.roster, half)).deal().mask()
    for masked in given.masked.values():
        words = np.frombuffer(masked.words, "<u2").astype(float)
        assert abs(np.corrcoef(words, half.astype(float))[0, 1]) < 6 / np.sqrt(agreed.words)


def test_shares_below_the_threshold_fit_a_masking_key_no_better_than_random_ones():
    private, holders, threshold = fresh_private_key(), 21, 11
    shares = dict(enumerate(shares_of(private, holders, threshold), 1))
    for indices in itertools.islice(itertools.combinations(range(1, holders + 1), threshold - 1), 50):
        assert secret_of({index: shares[index] for index in indices}) != private
    assert secret_of({place: shares[place] for place in range(5, 5 + threshold)}) == private
