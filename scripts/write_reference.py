"""Write the generated pages of docs/reference from the source; `--check` only names stale ones."""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "maskrcnn"
# Of a value in a table.
LONGEST = 60
PAGES = ROOT / "docs" / "reference"
COMMAND = ".venv/bin/python scripts/write_reference.py"
NOTE = f"<!-- Written by `{COMMAND}` from the source: change that and run it again. -->"

# What a program that uses the package needs; (module, name), in reading order.
PUBLIC = (
    ("predict", "open_model"),
    ("predict", "Predictor"),
    ("detections", "Detections"),
    ("images", "find_images"),
    ("images", "read_image"),
    ("drawing", "draw"),
    ("preprocess", "Geometry"),
    ("preprocess", "resized_size"),
    ("preprocess", "prepare"),
    ("preprocess", "batch"),
    ("masks", "paste_crop"),
    ("masks", "paste"),
    ("masks", "encode"),
    ("detections", "Raw"),
    ("backends.pytorch", "open_pytorch"),
    ("weights.model_file", "read_spec"),
    ("weights.model_file", "read_model_file"),
    ("weights.model_file", "write_model_file"),
    ("errors", "UserError"),
)


def main() -> None:
    """Write the pages that differ, or with --check exit with 1 and name them."""
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        sys.exit(f"not current: {', '.join(path.name for path in stale)}; run {COMMAND}" if stale else 0)
    for path in stale:
        path.write_text(pages()[path], "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def pages() -> dict[Path, str]:
    """Every generated page: path and text."""
    texts = {
        "cli": cli_page(),
        "configuration": configuration_page(),
        "python": python_page(),
        "sources": sources_page(),
        "training": training_page(),
    }
    joined = {name: re.sub(r"\n{3,}", "\n\n", "\n".join(text)).rstrip() for name, text in texts.items()}
    return {PAGES / f"{name}.md": f"{text}\n" for name, text in joined.items()}


def cli_page() -> Iterator[str]:
    """All verbs with their arguments and options, as `maskrcnn VERB --help` has them."""
    from maskrcnn.cli.main import app

    program = typer.main.get_command(app)
    yield from ("# Command line", "", NOTE, "")
    yield "Data goes to stdout, words and progress to stderr. Exit codes: 0 done; 1 the answer is no, or a"
    yield "part failed; 2 you must change something, and `error:` and `hint:` say what; 130 interrupted."
    for name, verb in program.commands.items():  # type: ignore[attr-defined]
        for inner, each in getattr(verb, "commands", {"": verb}).items():
            if not each.hidden:
                yield from ("", *cli_verb(f"{name} {inner}".rstrip(), each))


def cli_verb(name: str, verb: Any) -> Iterator[str]:
    """One verb."""
    shown = [part for part in verb.params if part.name != "help" and not getattr(part, "hidden", False)]
    arguments = [part for part in shown if part.param_type_name == "argument"]
    words = [argument_word(part) for part in arguments]
    yield from (f"## maskrcnn {name}", "", f"`maskrcnn {' '.join([name, *words])} [OPTIONS]`", "")
    yield from (sentences(verb.help), "", "| | | default |", "|---|---|---|")
    for part, word in zip(arguments, words, strict=True):
        yield f"| `{word}` | {cell(part.help)} | {default_cell(part)} |"
    for part in shown:
        if part.param_type_name == "option":
            spelling = ", ".join(f"`{word}`" for word in [*part.opts, *part.secondary_opts])
            yield f"| {spelling} | {cell(part.help)} | {default_cell(part)} |"


def argument_word(part: Any) -> str:
    """An argument as the usage line names it: SOURCE... where several may stand."""
    word = (part.metavar or part.name).upper().strip("[]{}.")
    return f"{word}..." if part.nargs == -1 else word


def default_cell(part: Any) -> str:
    """The default as one would type it; empty for none, for flags that are off and for required ones."""
    value = part.default
    if part.required or value in (None, False, (), [], "") or not isinstance(value, str | int | float | Path):
        return ""
    return f"`{value}`"


def configuration_page() -> Iterator[str]:
    """The tree of dataclasses that a model file stores, with every field's type, default and meaning."""
    yield from ("# Configuration", "", NOTE, "")
    yield "A model file stores one `Spec` as JSON, and the verbs that make model files change it with"
    yield "`--set model.rpn.post_nms=300`. Unknown names and wrong types are errors that name the place."
    yield from dataclass_tree("Spec", ("spec", "config"))


def training_page() -> Iterator[str]:
    """The tree of dataclasses that a run file stores."""
    yield from ("# Training", "", NOTE, "")
    yield "`maskrcnn train RUN.yaml` reads one `RunFile`; `--set training.clip=5` changes any field of it."
    yield "Unknown names and wrong types are errors that name the place."
    yield from dataclass_tree("RunFile", ("training.run_file", "training.recipe", "data.augment"))


def dataclass_tree(root: str, modules: tuple[str, ...]) -> Iterator[str]:
    """A table for a dataclass and for each one inside it, all defined in these modules."""
    nodes = [node for name in modules for node in module_tree(name).body]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    short = {
        ast.unparse(node.targets[0]): ast.unparse(node.value)
        for node in nodes
        if isinstance(node, ast.Assign)
    }
    waiting = [(root, "")]
    while waiting:
        name, path = waiting.pop(0)
        yield from ("", *configuration_class(classes[name], path, short))
        parts = [(ast.unparse(field.annotation), field.target.id) for field in fields_of(classes[name])]
        waiting = [(kind, f"{path}{field}.") for kind, field in parts if kind in classes] + waiting


def configuration_class(node: ast.ClassDef, path: str, short: dict[str, str]) -> Iterator[str]:
    """One dataclass; `short` are names that stand for a type or a value."""
    fields = fields_of(node)
    prose, meanings = meanings_of(ast.get_docstring(node) or "", [field.target.id for field in fields])
    yield from (f"## {path.rstrip('.') or node.name}", "", prose, "")
    yield from ("| field | type | default | |", "|---|---|---|---|")
    for field in fields:
        name, kind = f"{path}{field.target.id}", ast.unparse(field.annotation)
        default = ast.unparse(field.value) if field.value else ""
        if default.startswith("field("):
            yield f"| `{name}` | [{kind}](#{name.replace('.', '')}) | | |"
        else:
            kind, default = short.get(kind, kind), short.get(default, default)
            yield f"| `{name}` | {code(kind)} | {code(default)} | {cell(meanings.get(field.target.id))} |"


def fields_of(node: ast.ClassDef) -> list[Any]:
    """The annotated fields of a dataclass."""
    return [part for part in node.body if isinstance(part, ast.AnnAssign)]


def meanings_of(text: str, names: list[str]) -> tuple[str, dict[str, str]]:
    """A docstring's prose, and its `name, name: meaning` lines with their indented continuations."""
    prose: list[str] = []
    meanings: dict[str, str] = {}
    current: list[str] = []
    for line in text.splitlines():
        start = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        if start and set(start[1].split(", ")) <= set(names):
            current = start[1].split(", ")
            meanings |= dict.fromkeys(current, start[2])
        elif current and line.strip():
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in current}
        else:
            prose.append(line.strip())
    return " ".join(prose).strip(), meanings


def python_page() -> Iterator[str]:
    """Signatures and docstrings of what a program uses."""
    yield from ("# Python", "", NOTE, "")
    yield "Images are uint8 arrays (H, W, 3), RGB. Boxes are x1, y1, x2, y2 in pixels of the image, or of the"
    yield "network's input where a name ends in `_net`. A size is (height, width)."
    for module, name in PUBLIC:
        found = [node for node in module_tree(module).body if getattr(node, "name", "") == name]
        assert found, f"maskrcnn.{module} has no {name}"
        yield from ("", f"## maskrcnn.{module}.{name}", "", *python_definition(found[0]))


def python_definition(node: Any) -> Iterator[str]:
    """A function, or a class with its public methods."""
    if isinstance(node, ast.FunctionDef):
        yield from ("```python", signature(node), "```", "", *docstring(node))
        return
    yield from docstring(node)
    if fields_of(node):
        fields = "\n".join(ast.unparse(part) for part in fields_of(node)).replace("'", '"')
        yield from ("", "```python", re.sub(r"field\(default_factory=(\w+)\)", r"\1()", fields), "```")
    shown = ("__init__", "__call__", "__len__", "__getitem__")
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and (part.name in shown or not part.name.startswith("_")):
            yield from ("", "```python", signature(part), "```", "", *docstring(part))


def signature(node: ast.FunctionDef) -> str:
    """`def name(a: int) -> str`, with `@classmethod` and the like."""
    marks = "".join(f"@{ast.unparse(mark)}\n" for mark in node.decorator_list)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{marks}def {node.name}({ast.unparse(node.args)}){returns}".replace("'", '"')


def docstring(node: Any) -> list[str]:
    """Its lines, where indented continuations are joined to the line above them."""
    text = ast.get_docstring(node) or ""
    return re.sub(r"\n +", " ", text).replace("\n", "  \n").replace("  \n  \n", "\n\n").splitlines()


def sources_page() -> Iterator[str]:
    """What is taken for each source that files do not say, and the names that its checkpoints have."""
    from maskrcnn.weights.recognise import SOURCES

    yield from ("# Sources", "", NOTE, "")
    yield "Checkpoints that `maskrcnn convert` reads, in the order in which their names are tried. A name"
    yield "belongs to one row of its source's table; where a row changes a tensor, the last column says how."
    yield from ("", "## Habits", "")
    yield "What an R50-FPN of each source gets where neither its file nor an option tells. Fields are those"
    yield "of the [configuration](configuration.md); empty is the same as in the first column."
    yield from ("", *habits(list(SOURCES.values())))
    modules: dict[str, list[Any]] = {}
    for source in SOURCES.values():
        modules.setdefault(source.describe.__module__, []).append(source)
    for module, sources in modules.items():
        name = module.rpartition(".")[2].replace("_", "-")
        yield from ("", f"## {name}", "", sentences(sys.modules[module].__doc__))
        for source in sources:
            yield from source_table(source, titled=len(sources) > 1)


def habits(sources: list[Any]) -> Iterator[str]:
    """A table: a row for each field in which sources differ, a column for each source."""
    main = [source for source in sources if not source.name.endswith(("-c4", "-fpn", "-norms"))]
    specs = {source.name: described(source) for source in main}
    fields = {name: flat_fields(spec) for name, spec in specs.items()}
    first = next(iter(fields.values()))
    yield f"| | {' | '.join(fields)} |"
    yield f"|---|{'---|' * len(fields)}"
    for path, value in first.items():
        values = [column[path] for column in fields.values()]
        if any(other != value for other in values):
            cells = [code(value), *(code(other) if other != value else "" for other in values[1:])]
            yield f"| `{path}` | {' | '.join(cells)} |"


def described(source: Any) -> Any:
    """The Spec of an R50-FPN of a source whose checkpoint says nothing by itself."""
    from maskrcnn.config import ModelConfig
    from maskrcnn.weights.readers import Checkpoint

    style = "pytorch" if source.name == "mmdetection" else None
    return source.describe(ModelConfig(), Checkpoint(Path("model"), "", "", {}, {}), style, None).spec


def flat_fields(spec: Any) -> dict[str, str]:
    """`preprocess.filter`, `model.conventions.plus_one` and so on; not the classes and the origin."""
    found: dict[str, str] = {}

    def walk(prefix: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                walk(f"{prefix}{name}.", value)
            else:
                text = f"{value:.5g}" if isinstance(value, float) else str(value)
                found[f"{prefix}{name}"] = text if len(text) < LONGEST else "its own numbers"

    walk("", {"preprocess": asdict(spec.preprocess), "model": asdict(spec.model)})
    return found


def source_table(source: Any, titled: bool) -> Iterator[str]:
    """What a source is recognised by, and the rows of its table."""
    if titled:
        yield from ("", f"### {source.name}")
    recognised = " and ".join(code(name) for name in sorted(source.fingerprint))
    yield from ("", f"Recognised by {recognised}.", "")
    yield from ("| theirs | ours | |", "|---|---|---|")
    for row in source.table:
        change = "" if row.op.name in ("same", "drop") else row.op.name
        yield f"| {code(row.theirs)} | {code(row.ours) or 'left out'} | {change} |"


def module_tree(name: str) -> ast.Module:
    """A module of the package, parsed."""
    path = PACKAGE / f"{name.replace('.', '/')}.py"
    return ast.parse(path.read_text("utf-8"), str(path))


def sentences(text: str | None) -> str:
    """A help text with its paragraphs, each on one line."""
    paragraphs = (" ".join(part.split()) for part in (text or "").replace("\b", "").split("\n\n"))
    return "\n\n".join(paragraphs).strip()


def cell(text: str | None) -> str:
    """Text for a table."""
    return " ".join((text or "").split()).replace("|", "\\|")


def code(text: str) -> str:
    """Code for a table, nothing for an empty one."""
    return f"`{cell(text)}`" if text else ""


if __name__ == "__main__":
    main()
