"""A citation leads somewhere: pages, rules and decisions that source files name stand under docs/."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {page.name for page in [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]}
SOURCES = {
    path: path.read_text("utf-8")
    for folder in ("api", "parties", "vfl", "crypto", "benchmarks", "examples", "tests")
    for path in (ROOT / folder).rglob("*.py")
} | {ROOT / "pyproject.toml": (ROOT / "pyproject.toml").read_text("utf-8")}


def cited(pattern: str) -> dict[str, Path]:
    """What source files name by this pattern, each with a file that names it."""
    return {found: path for path, text in SOURCES.items() for found in re.findall(pattern, text)}


def test_every_page_that_a_source_file_names_exists():
    pages = cited(r"(?<![\w/*{<-])(?:docs/)?(?:[\w-]+/)*([A-Za-z][\w-]+\.md)\b")
    assert "ckks_training.md" in pages
    assert {page: path for page, path in pages.items() if page not in PAGES} == {}


def test_every_rule_of_rounds_that_a_source_file_names_is_written_down():
    rules = set(
        re.findall(r"^\| (R\d\.\d+) \|", (DOCS / "protocols/rules_of_rounds.md").read_text("utf-8"), re.MULTILINE)
    )
    named = cited(r"\b(R[0-4]\.\d+)\b")
    assert {rule: path for rule, path in named.items() if rule not in rules} == {}
    assert rules


def test_every_refusal_that_a_source_file_names_is_written_down():
    refusals = set(
        re.findall(r"^\| (X\d+)\b", (DOCS / "protocols/refused_settings.md").read_text("utf-8"), re.MULTILINE)
    )
    named = cited(r"\b(X(?:[1-9]|1[0-5]))\b")
    assert refusals == {f"X{number}" for number in range(1, 16)}
    assert {refusal: path for refusal, path in named.items() if refusal not in refusals} == {}


def test_every_decision_that_a_source_file_names_is_written_down():
    decisions = {page.name[:4] for page in (DOCS / "adr").glob("0*.md")}
    assert {number: path for number, path in cited(r"\bADR (\d{4})\b").items() if number not in decisions} == {}


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text("utf-8"))
        waiting += [(page.parent / link).resolve() for link in links]
    assert {page for page in DOCS.rglob("*.md") if page.resolve() not in reached} == set()
