"""What the documents refer to is there: pages and headings behind links, pages that the code names."""

import re
from pathlib import Path

import pytest
from pages import PAGES, ROOT, prose

PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]
LONGEST_README = 150


def test_pages_named_in_the_code_exist() -> None:
    for path in (path for package in ("api", "parties", "vfl", "crypto") for path in (ROOT / package).rglob("*.py")):
        for page in re.findall(r"\bdocs/[\w/.-]+\.md", path.read_text("utf-8")):
            assert (ROOT / page).is_file(), f"{path.relative_to(ROOT)} names {page}"


def anchors(page: Path) -> set[str]:
    """Anchors of headings, the way repository hosts make them, and explicit ones."""
    text = prose(page)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_pages_name_no_machine_and_no_package_host(page: Path) -> None:
    assert not re.search(r"/(?:work|root|home|tmp)/\w|https?://\S*(pypi|pytorch|artifactory)", page.read_text("utf-8"))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= LONGEST_README
