"""The documentation against the program: links, commands, Python and the generated pages."""

import ast
import importlib
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
# Its Python blocks are signatures.
SIGNATURES = DOCS / "reference" / "python.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text("utf-8")) if language in languages]


def links(page: Path) -> list[str]:
    """Targets of links and pictures that stand in the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page)) + re.findall(r'(?:src|href)="([^"]+)"', prose(page))
    return [target for target in found if not re.match(r"(https?|mailto):", target)]


def anchors(page: Path) -> set[str]:
    """What `#...` may name: the headings as Markdown hosts spell them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[list[str]]:
    """Every `maskrcnn ...` of the shell blocks and of inline code, as words."""
    shell = "\n".join(blocks(page, "console", "bash", "sh")).replace("\\\n", " ")
    lines = [re.sub(r"^\$ ", "", line) for line in shell.splitlines()]
    inline = re.findall(r"`(maskrcnn [^`]+)`", prose(page).replace("\n", " "))
    for line in [*lines, *inline]:
        if line.startswith("maskrcnn "):
            yield shlex.split(line, comments=True)[1:]


def verbs() -> dict[str, Any]:
    from maskrcnn.cli.main import app

    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


@each_page
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}: no such heading"


def test_every_page_is_reached_from_the_index() -> None:
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            files = [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
            waiting += [file for file in files if file.suffix == ".md" and DOCS in file.parents]
    assert sorted(set(DOCS.rglob("*.md")) - reached) == []


@each_page
def test_commands_name_verbs_and_options_that_exist(page: Path) -> None:
    for line in commands(page):
        words = line[: line.index("|")] if "|" in line else line
        if words[0] in ("--help", "--version", "VERB", "..."):
            continue
        assert words[0] in verbs(), f"maskrcnn {' '.join(words)}: no such verb"
        verb = verbs()[words[0]]
        if hasattr(verb, "commands") and len(words) > 1 and "|" not in words[1]:
            assert words[1] in verb.commands, f"maskrcnn {' '.join(words)}: no such verb"
            verb = verb.commands[words[1]]
        known = {spelling for part in verb.params for spelling in [*part.opts, *part.secondary_opts]}
        options = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-zA-Z]", word)}
        assert options <= known | {"--help"}, f"maskrcnn {' '.join(words)}: {options - known}"


@each_page
def test_python_examples_compile_and_import_what_exists(page: Path) -> None:
    if page == SIGNATURES:
        return
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskrcnn"):
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith("maskrcnn"):
                        importlib.import_module(alias.name)


@each_page
def test_json_and_yaml_examples_parse(page: Path) -> None:
    for text in blocks(page, "json"):
        json.loads(text)
    for text in blocks(page, "yaml"):
        yaml.safe_load(text)


@each_page
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = prose(page) + "\n".join(blocks(page, "console", "bash", "sh"))
    assert set(re.findall(r"(?:`|^\$ |^)make ([a-z]+)", text, re.MULTILINE)) <= targets


def test_the_generated_pages_are_current() -> None:
    """Accept a change with `.venv/bin/python scripts/write_reference.py`."""
    script = runpy.run_path(str(ROOT / "scripts" / "write_reference.py"))
    for path, text in script["pages"]().items():
        assert path.read_text("utf-8") == text, f"{path.name}: run {script['COMMAND']}"


def test_hints_of_the_program_name_commands_that_exist() -> None:
    unknown = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        strings = [
            part for part in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(part, ast.Constant)
        ]
        found = {verb for part in strings for verb in re.findall(r"`maskrcnn ([a-z]+)", str(part.value))}
        if found - set(verbs()):
            unknown[path.name] = found - set(verbs())
    assert unknown == {}
