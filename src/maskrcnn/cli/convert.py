"""`maskrcnn convert`: a checkpoint of another project becomes a model file, or with --to the reverse."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskrcnn.cli.gate import CheckImages, Verify
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from maskrcnn.export.converted import Tried
    from maskrcnn.weights.convert import Report, RowCount
    from maskrcnn.weights.convert_back import BackReport
    from maskrcnn.weights.graph_description import Described

# Of files that are copied with a description, and not converted.
GRAPHS = (".onnx", ".xml")


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Checkpoint or graph of another tool, or a checkpoint of the zoo; with --to a model file "
            "or `example`.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Model file to write, ending in .safetensors; of a graph as the graph ends, .onnx or .xml; "
            "with --to as it says.",
        ),
    ],
    origin: Annotated[
        str | None,
        typer.Option("--from", help="Source of the checkpoint, as `torchvision`; recognised when left out."),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(
            help="caffe or pytorch: stride placement and input, where the file does not tell; of a .wts file "
            "tensorrtx or ixrt: fed and computed as that program does."
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="`coco`, or a file of names: one a line, a JSON list, or COCO annotations."),
    ] = None,
    source_config: Annotated[
        Path | None,
        typer.Option(help="The model's own config: config.yaml of detectron2, dumped .py of mmdetection."),
    ] = None,
    averaged: Annotated[
        bool, typer.Option("--ema", help="Take the moving average of the weights, where the file holds one.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A setting of the model file, such as model.rpn.post_nms=300; repeatable."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="Write a checkpoint of torchvision, detectron2, mmdetection or maskrcnn-benchmark (.pth), "
            "detectron2 (.pkl), wts (.wts) or mindspore (.ckpt).",
        ),
    ] = None,
    allow_differences: Annotated[
        bool,
        typer.Option(
            "--allow-differences",
            help="With --to: write although the other tool computes some things otherwise.",
        ),
    ] = False,
    check: CheckImages = None,
    verify: Verify = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Make a model file of another tool's checkpoint, or with --to such a checkpoint of a model file.

    A graph of another tool, .onnx or .xml, is copied with a description of how it is fed.
    """
    import json

    from_only = {
        "--from": origin,
        "--style": style,
        "--classes": classes,
        "--source-config": source_config,
        "--ema": averaged,
        "--set": settings,
        "--check": check,
        "--verify": verify,
    }
    _refuse_mixture(target, from_only, allow_differences)
    if target is None and source.suffix.lower() in GRAPHS:
        _refuse_for_graph(origin, averaged, check, verify)
        from maskrcnn.weights.graph_description import describe_graph

        described = describe_graph(
            source, out, style=style, classes=classes, source_config=source_config, settings=settings or ()
        )
        print(
            json.dumps(described.to_json(), indent=2) if as_json else "\n".join(graph_lines(described, out))
        )
        return
    if target is None:
        from maskrcnn.weights.convert import convert as convert_file

        def write(path: Path) -> "Report":
            return convert_file(
                source,
                path,
                origin=origin,
                style=style,
                classes=classes,
                source_config=source_config,
                averaged=averaged,
                settings=settings or (),
            )

        if check or verify:
            _try(out, write, check or (), verify, style, as_json)
            return
        report = write(out)
        print(json.dumps(report.to_json(), indent=2) if as_json else "\n".join(report_lines(report, out)))
        return
    from maskrcnn.predict import model_path
    from maskrcnn.weights.convert_back import convert_back

    back = convert_back(model_path(str(source)), out, target, allow_differences=allow_differences)
    print(json.dumps(back.to_json(), indent=2) if as_json else "\n".join(back_report_lines(back, out)))


def _try(
    out: Path,
    write: "Callable[[Path], Report]",
    check: "Sequence[str]",
    verify: Path | None,
    style: str | None,
    as_json: bool,
) -> None:
    """Convert, run what came of it, and say so. Ends the program with 1 if it was rejected."""
    import json
    from dataclasses import asdict

    from maskrcnn.cli.gate import asked_for, watching
    from maskrcnn.cli.main import print_error
    from maskrcnn.export.converted import convert_tried

    reports: list[Report] = []
    with watching() as watch:
        tried = convert_tried(
            out, lambda path: reports.append(write(path)), asked_for(check, verify), style, watch
        )
    if as_json:
        values = asdict(tried) | {"path": str(tried.path), "precision": dict(tried.precision)}
        print(json.dumps(reports[0].to_json() | {"check": values}, indent=2))
    else:
        print("\n".join([*report_lines(reports[0], tried.path), tried_in_words(tried)]))
    if tried.fault:
        hint = "report it with the checkpoint's sha256: this is a mistake of maskrcnn or of the file"
        print_error(UserError(f"{out}: {tried.fault}; kept as {tried.path}", hint))
        raise typer.Exit(1)


def tried_in_words(tried: "Tried") -> str:
    """`ran on 6 drawn images: 458 objects, the same to the bit after the way to torchvision and back`."""
    parts = [f"{tried.found} object{'s' * (tried.found != 1)}"]
    if tried.back and not tried.fault:
        parts.append(f"the same to the bit after the way to {tried.back} and back")
    parts += [f"{name.replace('/', ' ')} {100 * value:.1f}" for name, value in tried.precision]
    return f"ran on {tried.on}: {', '.join(parts)}"


def _refuse_mixture(target: str | None, from_only: "Mapping[str, object]", allow_differences: bool) -> None:
    if target is None:
        if allow_differences:
            raise UserError("--allow-differences goes with --to", hint="leave it out, or say --to what")
        return
    wrong = [option for option, value in from_only.items() if value]
    if wrong:
        raise UserError(
            f"{', '.join(wrong)} {'do' if len(wrong) > 1 else 'does'} not go with --to {target}",
            hint="a model file knows it already; convert its checkpoint again to change it",
        )


def _refuse_for_graph(
    origin: str | None, averaged: bool, check: "Sequence[str] | None", verify: Path | None
) -> None:
    given = {"--from": origin, "--ema": averaged, "--check": check, "--verify": verify}
    wrong = [option for option, value in given.items() if value]
    if wrong:
        raise UserError(
            f"{', '.join(wrong)} {'do' if len(wrong) > 1 else 'does'} not go with a graph",
            hint="leave it out; `maskrcnn eval OUT` measures the graph",
        )


def graph_lines(described: "Described", out: Path) -> list[str]:
    """For a person: what the graph is said to be, and what was taken for granted."""
    from maskrcnn.cli.info import classes, resizing

    spec = described.spec
    lines = [
        f"graph of {spec.exported.contract if spec.exported else ''} · classes {classes(spec)}",
        resizing(spec),
        f"mean {_row(spec.model.mean)}, std {_row(spec.model.std)}, of 0..255 · "
        f"sha256 {spec.origin.sha256[:12]}",
    ]
    return [*lines, *(f"note: {note}" for note in described.notes), f"-> {out}"]


def _row(values: "Iterable[float]") -> str:
    return " ".join(f"{value:g}" for value in values)


def report_lines(report: "Report", out: Path) -> list[str]:
    """For a person: one line that says it all, the rows of the table, and what was taken for granted."""
    spec = report.spec
    origin, preprocess = spec.origin, spec.preprocess
    named = sum(bool(name) for name in spec.classes.names)
    size = f"{preprocess.channels.upper()}, {preprocess.filter} resize {preprocess.short}/{preprocess.long}"
    lines = [
        f"{origin.source} {report.architecture}, {named} classes, {size} · "
        f"{report.tensors} tensors, every one placed · sha256 {origin.sha256[:12]}",
        *_row_lines((row.theirs, row.ours, row) for row in report.rows),
        "conventions: " + ", ".join(f"{name} {value}" for name, value in _conventions(report)),
    ]
    return [*lines, *(f"note: {note}" for note in report.notes), f"-> {out}"]


def back_report_lines(report: "BackReport", out: Path) -> list[str]:
    """For a person: one line that says it all, the rows, what is different there, and what to tell it."""
    classes = report.spec.model.classes
    count = len(report.differences)
    known = f"{count or 'no'} difference{'s' * (count > 1)}"
    lines = [
        f"{report.target} {report.architecture}, {classes} classes · {report.tensors} tensors · {known} · "
        f"sha256 of the model {report.sha256[:12]}",
        *_row_lines((row.ours, row.theirs, row) for row in report.rows),
        *(f"difference: {difference}" for difference in report.differences),
        *(f"note: {note}" for note in report.notes),
    ]
    if report.config:
        lines += [f"config: {report.where}", *(f"    {line}".rstrip() for line in report.config.splitlines())]
    return [*lines, f"-> {out}"]


def _row_lines(rows: "Iterable[tuple[str, str, RowCount]]") -> list[str]:
    """How many tensors, from what name to what name, and how."""
    rows = list(rows)
    before = max(len(name) for name, _, _ in rows)
    after = max(len(name) for _, name, _ in rows)
    ops = ("" if row.op == "same" else row.op for _, _, row in rows)
    return [
        f"{row.tensors:5d}  {ours:{before}}  {theirs:{after}}  {op}".rstrip()
        for (ours, theirs, row), op in zip(rows, ops, strict=True)
    ]


def _conventions(report: "Report") -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in vars(report.spec.model.conventions).items()]
