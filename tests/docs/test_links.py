"""Every link in the documents leads somewhere, and every page and picture is reached."""

import re

import pytest

from tests.docs.figures import DOCUMENTS, ROOT

DOCS = ROOT / "docs"
LINK = re.compile(r'\]\((?P<target>[^)\s]+)(?: "[^"]*")?\)')
FENCE = re.compile(r"^```.*?^```", re.M | re.S)
SPAN = re.compile(r"`[^`\n]*`")


def prose(path):
    """A document without its code, in which brackets are no links."""
    return SPAN.sub("", FENCE.sub("", path.read_text(encoding="utf-8")))


def links(path):
    """Targets inside of the repository, as (file, anchor)."""
    for match in LINK.finditer(prose(path)):
        if "://" not in match["target"]:
            file, _, anchor = match["target"].partition("#")
            yield (path.parent / file).resolve() if file else path, anchor


def anchors(path):
    """Anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.*)$", text, re.M)
    bare = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in bare}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_dead_links(document):
    for file, anchor in links(document):
        assert file.exists(), f"{document.name} links to {file}"
        assert not anchor or anchor in anchors(file), f"{document.name} links to {file}#{anchor}"


def test_every_page_is_in_the_index():
    index = DOCS / "README.md"
    linked = {file for file, _ in links(index)}
    assert {path for path in DOCS.glob("*.md") if path != index} <= linked


def test_every_picture_is_shown():
    shown = {file for document in DOCUMENTS for file, _ in links(document)}
    pictures = {path for path in DOCS.iterdir() if path.suffix in (".png", ".svg")}
    assert pictures <= shown


def test_anchors(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# What it costs, `measured`\n```\n# no heading\n```\n## A [b](c.md) d\n")
    assert anchors(page) == {"what-it-costs-measured", "a-b-d"}
