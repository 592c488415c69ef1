"""The pages as a site: every link and anchor leads somewhere, and MkDocs builds it strictly."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page):
    return FENCE.sub("", page.read_text())


def anchors(page):
    """The anchors of a page's headings, as MkDocs and GitHub spell them."""
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        kept = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        yield re.sub(r"[\s]+", "-", kept)


def broken_links(page):
    """Links of a page that the site does not have: outside of docs, missing, or a missing anchor.

    The figures in runs/results are added by `.ci/mkdocs_images.py`.
    """
    for link in LINK.findall(prose(page)):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        path = (page.parent / target).resolve() if target else page
        is_figure = path.parent == ROOT / "runs" / "results" and path.suffix == ".png"
        if (
            not path.is_file()
            or not (is_figure or path.is_relative_to(DOCS))
            or (anchor and anchor not in anchors(path))
        ):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_stay_in_the_site_and_their_anchors_exist(page):
    assert list(broken_links(page)) == []


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](recipes.md)", False),
        ("[a](recipes.md#no-such-heading)", True),
        ("[a](no_such_page.md)", True),
        ("[a](../CONTRIBUTING.md)", True),
        ("[a](#here)\n\n## Here", False),
        ("```text\n[a](missing.md)\n```", False),
    ],
)
def test_the_check_sees_a_broken_link(tmp_path, monkeypatch, text, broken):
    monkeypatch.setattr(sys.modules[__name__], "DOCS", tmp_path)
    (tmp_path / "recipes.md").write_text("# Recipes\n")
    (tmp_path / "page.md").write_text(text)
    assert bool(list(broken_links(tmp_path / "page.md"))) == broken


@pytest.mark.slow
def test_the_site_is_built(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is in the dependency group docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in PAGES:
        name = "" if page.stem == "index" else page.stem
        assert (tmp_path / "site" / name / "index.html").is_file()
