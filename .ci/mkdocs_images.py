"""MkDocs hook: adds the figures in runs/results to the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files


def on_files(files: Files, config: Any) -> Files:
    """Adds the figures as files of the site."""
    runs = Path(config["config_file_path"]).parent / "runs"
    for path in sorted((runs / "results").glob("*.png")):
        files.append(File(f"results/{path.name}", str(runs), config["site_dir"], False))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links the pages to them."""
    return markdown.replace("](../runs/results/", "](results/")
