"""Each case on the page of wrong inputs has a test, and ends in an error or notice that is explained."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
CASES = re.findall(
    r"^\| (.+?) \| (.+?) \| `([\w/]+\.py)::(\w+)` \|$", (DOCS / "wrong_input.md").read_text("utf-8"), re.MULTILINE
)
CODE = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")
ANSWERS = {"not_in_session"}
"""Of a session, beside its scores."""


@cache
def functions_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def explained() -> set[str]:
    """Codes of errors and notices."""
    pages = [(DOCS / page).read_text("utf-8") for page in ("errors.md", "notices.md")]
    return {code for page in pages for code in re.findall(r"`([a-z_]+)`", page)}


@pytest.mark.parametrize("case", CASES, ids=[case for case, *_ in CASES])
def test_a_case_names_a_test_that_exists_and_an_ending_that_is_explained(case: tuple[str, str, str, str]) -> None:
    _, ending, file, test = case
    assert test in functions_in(file)
    assert set(CODE.findall(ending)) <= explained() | ANSWERS


def test_every_row_of_the_page_is_such_a_case() -> None:
    rows = re.findall(r"^\| .*$", (DOCS / "wrong_input.md").read_text("utf-8"), re.MULTILINE)
    assert len(CASES) == len([row for row in rows if row != "| case | ending | test |"])
    assert len(CASES) > 80
