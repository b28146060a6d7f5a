"""The site of the documentation: every page is in it, and none points outside."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, Browser

HERE = Path(__file__).parents[2]
DOCS = HERE / "docs"
needs_mkdocs = pytest.mark.skipif(
    not importlib.util.find_spec("mkdocs"), reason="needs the extra 'docs'"
)


def made(folder: Path) -> Path:
    runpy.run_path(str(DOCS / "make_site.py"))["main"](folder, gallery=False)
    return folder


def test_every_page_is_in_the_site_once():
    listed = re.findall(r"^\s+- [^:]+: (\S+\.md)$", (HERE / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))


def test_pages_of_the_site_point_at_pages_of_the_site(tmp_path):
    pages = made(tmp_path / "pages")
    for page in pages.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (pages / target).is_file(), f"{page.name}: {target}"


@pytest.mark.slow
def test_pages_of_the_gallery_find_their_plotting_library(tmp_path):
    module = runpy.run_path(str(DOCS / "make_site.py"))
    for title in list(module["STUDIES"])[1:]:
        del module["STUDIES"][title]
    module["STUDIES"]["A training run"] = "study=explain chip=small"
    folder = tmp_path / "docs" / "pages"
    module["main"](folder, gallery=True)
    gallery = folder / "gallery"
    assert 'href="gallery/0.html"' in (folder / "gallery.md").read_text()
    way = re.search(r'<script src="([^"]+)"', (gallery / "0.html").read_text())
    assert way
    assert (gallery / way.group(1)).is_file()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    pages = made(folder / "pages")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "-d", str(folder / "site")]
    subprocess.run(words, cwd=HERE, check=True, env={**os.environ, "REPAST_DOCS": str(pages)})
    return folder / "site"


@needs_mkdocs
@pytest.mark.slow
def test_the_site_is_built_without_a_warning(site):
    assert "load_hardware" in (site / "reference.html").read_text()


@needs_mkdocs
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.slow
def test_the_search_of_the_site_finds_pages_without_a_server_or_a_network(site):
    links = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
    with Browser() as browser:
        browser.visit((site / "index.html").as_uri(), "document.readyState === 'complete'")
        browser.press("/fusion")
        browser.wait(f"{links}.length > 0")
        found = {link.partition("?")[0] for link in browser.evaluate(links)}
        assert (site / "fusion.html").as_uri() in found
        assert {urlsplit(asked).scheme for asked in browser.requests()} == {"file", "data"}
        assert browser.problems() == []
