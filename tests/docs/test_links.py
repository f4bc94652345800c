"""Links between pages, and how long a page may be."""

import re
from pathlib import Path

from tests.docs.commands import DOCUMENTS, ROOT

README = ROOT / "README.md"


def links(path: Path) -> list[tuple[Path, str]]:
    """The files of the project that a document links to, each with the heading."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    places = re.findall(r"\]\(([^)\s]+)\)", text)
    split = (place.partition("#") for place in places if "://" not in place)
    return [((path.parent / name).resolve() if name else path, at) for name, _, at in split]


def headings(path: Path) -> set[str]:
    """As GitHub makes anchors of them: lower case, punctuation gone, hyphens for blanks."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_links_lead_somewhere() -> None:
    every = [(path, *link) for path in DOCUMENTS for link in links(path)]
    assert len(every) > 50
    assert [(path, to) for path, to, _ in every if not to.exists()] == []
    named = [(path, to, at) for path, to, at in every if at]
    assert [link for link in named if link[2] not in headings(link[1])] == []


def test_every_page_is_one_click_from_the_readme() -> None:
    reached = {to for to, _ in links(README)}
    assert [path for path in DOCUMENTS if path.parts[-2] in ("docs", "guides")] != []
    for path in DOCUMENTS:
        if path.is_relative_to(ROOT / "docs"):
            assert path in reached, path


def test_readme_and_guides_are_short() -> None:
    lines = {path: path.read_text().count("\n") for path in DOCUMENTS}
    assert lines[README] < 150
    assert [path for path in DOCUMENTS if path.parent.name == "guides" and lines[path] > 80] == []
