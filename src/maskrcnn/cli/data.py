"""`maskrcnn data`: look at annotations, mend them, divide them and write them in other formats."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.data.content import Content
    from maskrcnn.data.doctor import Finding
    from maskrcnn.data.statistics import Statistics

DATA = (
    "Annotations: a COCO or VIA .json, a CVAT .xml, a YOLO data.yaml, or a folder of COCO, labelme, VOC, "
    "YOLO or label images; also as a URL of a store, as s3://bucket/coco."
)
IMAGES = "Folder or URL of the pictures, where it is not `images` beside the file or the file's own."
SPLIT = "train, val or test of a YOLO or VOC set."
EXAMPLES = 3

Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA)]
Images = Annotated[str | None, typer.Option(metavar="PATH", help=IMAGES)]
Part = Annotated[str | None, typer.Option("--split", help=SPLIT)]

app = typer.Typer(no_args_is_help=True, help="Check, describe, convert, divide and view annotations.")


@app.command()
def check(
    data: Data,
    images: Images = None,
    split: Part = None,
    fix: Annotated[
        Path | None, typer.Option(help="COCO file to write a mended copy to; the original stays.")
    ] = None,
    crowds: Annotated[
        str, typer.Option(help="With --fix: keep, or instance to make instances of RLE with iscrowd 1.")
    ] = "keep",
    everything: Annotated[bool, typer.Option("--all", help="Every finding, not three of a kind.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
) -> None:
    """Find what would stop or spoil a training; exit code 1 if there is an error in the annotations."""
    from maskrcnn.data.doctor import examine

    if crowds not in ("keep", "instance"):
        raise UserError(f"--crowds {crowds}: is no choice", hint="choose keep or instance")
    content = _read(data, images, split)
    findings = examine(content)
    if as_json:
        _print_json([vars(finding) for finding in findings])
    else:
        print("\n".join(check_lines(content, findings, everything)))
    if fix is not None:
        _fix(content, fix, crowds)
    elif any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _read(data: str, images: str | None, split: str | None = None) -> "Content":
    """Annotations of this machine, or of a store as a copy in the cache."""
    from maskrcnn.data.read import read_annotations
    from maskrcnn.storage import fetched_path

    def say(words: str) -> None:
        print(words, file=sys.stderr)

    folder = None if images is None else fetched_path(images, say)
    return read_annotations(fetched_path(data, say), folder, split)


def _fix(content: "Content", out: Path, crowds: Any) -> None:
    from maskrcnn.data.doctor import examine
    from maskrcnn.data.mend import mend
    from maskrcnn.data.write import relative_to, write_coco

    mended, done = mend(content, crowds)
    write_coco(relative_to(mended, out.parent), out)
    for what, count in done.items():
        print(f"{count:6d}  {what}", file=sys.stderr)
    left = sum(finding.severity == "error" for finding in examine(mended))
    counted = f"{len(mended.pictures)} images, {len(mended.instances)} instances"
    print(f"{counted}, {left or 'no'} errors   -> {out}", file=sys.stderr)
    if left:
        raise typer.Exit(1)


def check_lines(content: "Content", findings: "list[Finding]", everything: bool) -> list[str]:
    """For a person: the counts, then each kind of fault with its first places."""
    from maskrcnn.data.doctor import count_by_kind

    counts = f"{len(content.pictures)} images, {len(content.instances)} instances"
    lines = [f"{content.path}   {content.format}, {counts}, {len(content.categories)} classes"]
    for kind, same in count_by_kind(findings).items():
        lines.append(f"{same[0].severity}: {kind}, {len(same)} time{'s' * (len(same) > 1)}")
        shown = same if everything else same[:EXAMPLES]
        lines += [f"  {each.place} {each.message}" for each in shown]
        if len(shown) < len(same):
            lines.append(f"  and {len(same) - len(shown)} more: --all lists them")
    return lines if len(lines) > 1 else [*lines, "nothing wrong"]


@app.command()
def stats(
    data: Data,
    images: Images = None,
    split: Part = None,
    model: Annotated[
        str, typer.Option(help="Model whose input and anchors the objects are measured with.")
    ] = "example",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Count pictures and objects, and tell whether a model's input and anchors fit their sizes."""
    from dataclasses import asdict

    from maskrcnn.data.statistics import describe
    from maskrcnn.predict import model_path
    from maskrcnn.weights.model_file import read_spec

    spec = read_spec(model_path(model))
    found = describe(_read(data, images, split), spec.preprocess, spec.model.anchors)
    if as_json:
        _print_json(asdict(found))
    else:
        print("\n".join(stats_lines(found, spec.preprocess.short)))


def stats_lines(found: "Statistics", short: int) -> list[str]:
    """For a person."""
    least, median, most = found.per_picture
    sizes = ", ".join(f"{width} x {height} ({count})" for (height, width), count in found.sizes)
    lines = [
        f"{found.pictures} images, {found.empty} without objects; {found.instances} objects, "
        f"{found.crowds} of them crowds",
        f"sizes of images: {sizes}",
        f"objects an image: {least} to {most}, half have {median} or fewer",
        f"objects by COCO's areas: {found.small:.0%} small, {found.medium:.0%} medium, "
        f"{found.large:.0%} large",
        f"side in image pixels, 5 25 50 75 95 %: {' '.join(f'{side:g}' for side in found.sides)}",
        f"side in network pixels (short side {short}): {' '.join(f'{side:g}' for side in found.sides_net)}; "
        f"{found.tiny_net:.0%} below 16",
        f"an anchor fits {found.anchors_fit:.1%} of the objects (IoU of 0.5 with the same centre)",
    ]
    if found.suggestion:
        lines.append(f"hint: {found.suggestion}")
    width = max((len(each.name) for each in found.classes), default=0)
    by_count = sorted(found.classes, key=lambda each: -each.instances)
    return lines + [
        f"  {each.name:<{width}}  {each.instances:7d} objects in {each.pictures} images" for each in by_count
    ]


@app.command()
def convert(
    data: Data,
    out: Annotated[Path, typer.Argument(help="COCO file ending in .json, or a folder that does not exist.")],
    to: Annotated[str, typer.Option(help="coco, yolo, labelme or masks (label images).")] = "coco",
    images: Images = None,
    split: Part = None,
) -> None:
    """Write annotations in another format; the pictures are linked, or copied, into a folder."""
    from maskrcnn.data.write import TARGETS, relative_to, write_content

    if to not in TARGETS:
        raise UserError(f"--to {to}: is no format", hint=f"choose {', '.join(TARGETS)}")
    if (to == "coco") != (out.suffix == ".json"):
        raise UserError(
            f"{out}: {'coco is one file' if to == 'coco' else f'{to} is a folder'}",
            hint="end its name in .json" if to == "coco" else "leave .json out, or say --to coco",
        )
    content = _usable(_read(data, images, split))
    write_content(relative_to(content, out.absolute().parent) if to == "coco" else content, out, to)
    counts = f"{len(content.pictures)} images, {len(content.instances)} objects"
    print(f"{content.format} -> {to}: {counts}   -> {out}")


def _usable(content: "Content") -> "Content":
    """Raises UserError where an instance has no listed image or class: nothing could be written of it."""
    from maskrcnn.data.dataset import dataset_of

    dataset_of(content)
    for words in content.skipped[:EXAMPLES]:
        print(f"note: left out: {words}", file=sys.stderr)
    if len(content.skipped) > EXAMPLES:
        print(f"note: {len(content.skipped) - EXAMPLES} more were left out", file=sys.stderr)
    return content


@app.command("split")
def split_(
    data: Data,
    out: Annotated[Path, typer.Argument(help="Folder for train.json, val.json and test.json.")],
    val: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the images for validation.")] = 0.2,
    test: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the images for the test.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another number deals them out in another way.")] = 0,
    images: Images = None,
) -> None:
    """Divide a data set so that every part has its share of every class; the pictures stay where they are."""
    from maskrcnn.data.split import split
    from maskrcnn.data.write import relative_to, write_coco

    if val + test >= 1:
        raise UserError(
            f"--val {val} and --test {test} leave nothing to train on", hint="give smaller shares"
        )
    content = _usable(_read(data, images))
    shares = {"train": 1 - val - test, "val": val, "test": test}
    parts = split(content, {name: share for name, share in shares.items() if share > 0}, seed)
    for name, part in parts.items():
        write_coco(relative_to(part, out.absolute()), out / f"{name}.json")
        print(f"{name}: {len(part.pictures)} images, {len(part.instances)} objects   -> {out / name}.json")


@app.command()
def view(
    data: Data,
    out: Annotated[Path, typer.Argument(help="Folder for the pictures.")] = Path("view"),
    most: Annotated[int, typer.Option("--limit", min=1, help="Pictures to draw, spread over the set.")] = 20,
    images: Images = None,
    split: Part = None,
) -> None:
    """Draw annotations over their pictures."""
    from collections import defaultdict

    from maskrcnn.data.view import drawn
    from maskrcnn.data.write import inside_name
    from maskrcnn.results.files import write_picture

    content = _read(data, images, split)
    of_image = defaultdict(list)
    for one in content.instances:
        of_image[one.image_id].append(one)
    step = max(1, len(content.pictures) // most)
    for picture in content.pictures[::step][:most]:
        name = Path(inside_name(picture.file_name))
        image = drawn(content, picture, of_image[picture.id])
        path = write_picture(out / name.with_suffix(""), name.suffix, image)
        print(f"{picture.file_name}   {len(of_image[picture.id])} objects   -> {path}")


def _print_json(values: Any) -> None:
    import json

    print(json.dumps(values, indent=2))
