"""What the site has beside the pages here: README, CONTRIBUTING, CHANGELOG, and the notebooks.

mkdocs calls these functions. Every link of theirs is checked like those of the pages.
"""

import json
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
_PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)")


def on_files(files, config):
    """Adds pages from elsewhere, and the files that pages link to outside of docs/."""
    for name, source in _PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    for page in list(files.documentation_pages()):
        for path in _OUTSIDE.findall(page.content_string):
            name = f"source/{path}"
            if (ROOT / path).is_file() and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, content=(ROOT / path).read_text()))
    for notebook in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        name = f"notebooks/{notebook.stem}.md"
        files.append(File.generated(config, name, content=_page(notebook)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Points links out of docs/ to the copies, and links to notebooks to their pages."""
    if "/" not in page.file.src_uri:
        markdown = _OUTSIDE.sub(r"](source/\1", markdown)
    return re.sub(r"(\]\([\w/.]+)\.ipynb\)", r"\1.md)", markdown)


def _page(notebook: pathlib.Path) -> str:
    """Returns a notebook as Markdown, with its outputs."""
    parts = []
    for cell in json.loads(notebook.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                parts.append(f"![](data:image/png;base64,{''.join(data['image/png']).strip()})")
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
