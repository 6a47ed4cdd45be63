"""What keeps the ids of two files apart, and what a file's ids look like to their owner. None of it goes to a peer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from parties.tables.spellings import OF_IDS, SCIENTIFIC, between, plain

INVISIBLE = r"[\x{ad}\x{200b}-\x{200f}\x{2060}\x{feff}]"


@dataclass(frozen=True)
class Peculiarity:
    """Of some ids of a file; an `odd` one is worth a warning before anything differs."""

    text: str
    odd: bool


def peculiarities(ids: Sequence[str] | pl.Series) -> list[Peculiarity]:
    """What the other side may write in another way."""
    return list(_peculiarities(pl.Series(ids, dtype=pl.String)))


def _peculiarities(ids: pl.Series) -> Iterator[Peculiarity]:
    shapes = (
        (r"^\s|\s$", "with a space at the start or the end", True),
        (INVISIBLE, "with an invisible character (a byte order mark or a zero-width space)", True),
        (r"[\x{a0}\x{202f}\x{3000}\t]", "with a space of another kind (a non-breaking one, or a tab)", True),
        (rf"^(?:{SCIENTIFIC.pattern})$", "in scientific notation (1.2E+17), whose last digits may be lost", True),
        (r"^[+-]?\d+\.\d*$", "that look like floating-point numbers (1.0 for 1)", True),
        (r"""^=?["'].*["']$""", "in quotation marks", True),
        (r"^0\d+$", "with leading zeros (007 for 7)", False),
        (r"\p{Lu}", "with capital letters", False),
        (r"\p{Ll}", "with small letters", False),
    )
    for pattern, text, odd in shapes:
        if count := int(ids.str.contains(pattern).sum()):
            yield Peculiarity(f"{count} of {len(ids)} ids {text}", odd)
    foreign = ids.filter(ids.str.len_bytes() != ids.str.len_chars())
    if count := int((foreign != foreign.str.normalize("NFC")).sum()):
        yield Peculiarity(f"{count} of {len(ids)} ids with letters in decomposed Unicode form (NFD)", odd=True)


def oddities(ids: Sequence[str] | pl.Series, file: str) -> str:
    """What is odd about them whatever the peer holds; empty when nothing is."""
    texts = [peculiarity.text for peculiarity in peculiarities(ids) if peculiarity.odd]
    return f"{file} holds {'; '.join(texts)}" if texts else ""


def own_ids(ids: Sequence[str] | pl.Series) -> str:
    """For the owner of ids that are not the peer's: what to look at in the own file first."""
    texts = [peculiarity.text for peculiarity in peculiarities(ids)]
    return f"Your own column holds {'; '.join(texts)}: does the peer write them so?" if texts else ""


def what_differs(here: Sequence[str], there: Sequence[str]) -> str:
    """Which difference, taken away, would make more ids of two files equal, in how many rows, with an example."""
    their_ids = set(there)
    lone, others = [text for text in here if text not in their_ids], their_ids - set(here)
    best: list[tuple[str, str]] = []
    for differences in (*((each,) for each in OF_IDS), OF_IDS):
        written = {plain(text, differences): text for text in sorted(others)}
        pairs = [(text, written[key]) for text in lone if (key := plain(text, differences)) in written]
        best = max(best, pairs, key=len)  # the first of equals: one difference before all of them
    if not best:
        return ""
    ours, theirs = best[0]
    return (
        f"{len(best)} more of {len(here)} ids would be equal but for {between(ours, theirs, OF_IDS)}, "
        f"as in {ours!r} and {theirs!r}"
    )
