"""`maskrcnn convert`: a checkpoint of another project becomes a model file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from maskrcnn.weights.convert import Report


def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint of torchvision, detectron2 or mmdetection.")],
    out: Annotated[Path, typer.Argument(help="Model file to write, ending in .safetensors.")],
    origin: Annotated[
        str | None,
        typer.Option("--from", help="torchvision, detectron2 or mmdetection; recognised when left out."),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(help="caffe or pytorch: stride placement and input, where the file does not tell."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="`coco`, or a file of names: one a line, a JSON list, or COCO annotations."),
    ] = None,
    source_config: Annotated[
        Path | None,
        typer.Option(help="The model's own config: config.yaml of detectron2, dumped .py of mmdetection."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A setting of the model file, such as model.rpn.post_nms=300; repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Convert a checkpoint of torchvision, detectron2 or mmdetection into a model file."""
    import json

    from maskrcnn.weights.convert import convert as convert_file

    report = convert_file(
        source,
        out,
        origin=origin,
        style=style,
        classes=classes,
        source_config=source_config,
        settings=settings or (),
    )
    print(json.dumps(report.to_json(), indent=2) if as_json else "\n".join(report_lines(report, out)))


def report_lines(report: "Report", out: Path) -> list[str]:
    """For a person: one line that says it all, the rows of the table, and what was taken for granted."""
    spec = report.spec
    origin, preprocess = spec.origin, spec.preprocess
    named = sum(bool(name) for name in spec.classes.names)
    size = f"{preprocess.channels.upper()}, {preprocess.filter} resize {preprocess.short}/{preprocess.long}"
    widths = [
        max(len(text) for text in column)
        for column in zip(*((r.theirs, r.ours) for r in report.rows), strict=True)
    ]
    lines = [
        f"{origin.source} {report.architecture}, {named} classes, {size} · "
        f"{report.tensors} tensors, every one placed · sha256 {origin.sha256[:12]}",
        *(
            f"{row.tensors:5d}  {row.theirs:{widths[0]}}  {row.ours:{widths[1]}}"
            + (f"  {row.op}" if row.op != "same" else "")
            for row in report.rows
        ),
        "conventions: " + ", ".join(f"{name} {value}" for name, value in _conventions(report)),
    ]
    return [*lines, *(f"note: {note}" for note in report.notes), f"-> {out}"]


def _conventions(report: "Report") -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in vars(report.spec.model.conventions).items()]
