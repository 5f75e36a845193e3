"""`maskrcnn bins`: images as `.bin` files, engines run on them, and what they leave, as on Ascend."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from maskrcnn.cli.engine import Engine
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.compat.ascend.bins import Bins
    from maskrcnn.compat.ascend.run import Manner
    from maskrcnn.predict import Predictor

IMAGES = "Images, folders or patterns."
FOLDER = "Folder for `<name>.bin`; FOLDER.info and FOLDER.json are written beside it."
FOR = "Model that they are for; without one mmdetection's R50-FPN at 1216x1216, as Ascend has it."
SIZE = "HEIGHTxWIDTH of every input, where the model does not say."
LETTERBOX = "Centre images, zeros around them after normalisation, as Ascend's script does."
UINT8 = "RGB bytes, not normalised: a quarter of the disk, for `maskrcnn bins run` and models with AIPP."
THEIRS = "Names that end at the first dot, JPEGs only, and the info file counted by suffix, as theirs are."
WORKERS = "Threads that read and write."
MODEL = "Model file of any engine, `example` or zoo:NAME."
BINS = "Folder of .bin files, or one; without any the engine is timed on zeros."
RESULTS = "Folder for the results; without one nothing is written."
DIRECTORY = "Name of the folder in OUT, in place of date and time."
COMPACT = "Write the mask of the predicted class alone, not those of all classes."
LOOP = "Times that each input is run; the times of all count."
KIND = "BIN, NPY or TXT files; TXT keeps six decimals."
FOUND = "Folder that `bins run` or ais_infer wrote, or the one above it."
INFO = "The .info or .json that was written with the bins, where the results do not say what they are of."
PARTIAL = "Measure on the images that have results, where others have none."
OUT = "Write NAME.txt with lines `class score x1 y1 x2 y2` here."
DRAW = "Write the pictures with what was found as well, to --out."
EXACT = "Round as Ascend's script does, where old figures are to be compared."
SCORE = "Least score in text files and pictures; everything counts in the measurement."
AT_LEAST = "Exit with 1 if this number of --json is below the value, as segm/AP=0.34. Repeatable."
CLOCK = "%Y_%m_%d-%H_%M_%S"

app = typer.Typer(no_args_is_help=True, help="Files of numbers for Ascend's tools: write, run, measure them.")


@app.command()
def write(
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help=IMAGES)],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help=FOLDER)],
    model: Annotated[str | None, typer.Option(help=FOR)] = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help=SIZE)] = None,
    letterbox: Annotated[bool, typer.Option("--letterbox", help=LETTERBOX)] = False,
    uint8: Annotated[bool, typer.Option("--uint8", help=UINT8)] = False,
    exact: Annotated[bool, typer.Option("--exact", help=THEIRS)] = False,
    workers: Annotated[int, typer.Option(min=1, help=WORKERS)] = 4,
) -> None:
    """Resize and normalise images into files; those that are there are kept. Exit code 1 if some are bad."""
    from maskrcnn.cli.export import sides
    from maskrcnn.compat.ascend.bins import bins_for
    from maskrcnn.images import find_images

    wanted = sides(size) if size else None
    bins = bins_for(model, wanted, letterbox, "uint8" if uint8 else "float32")
    write_all(find_images(images, skip=out), out, bins, workers, exact)


def write_all(files: list[Any], out: Path, bins: "Bins", workers: int, exact: bool) -> None:
    """Write bins and tell of it. Ends the program with 1 if some images are bad, with 2 if all are."""
    from maskrcnn.cli.account import Account, progress
    from maskrcnn.compat.ascend.bins import info_of
    from maskrcnn.compat.ascend.write import Wrote, in_their_order, write_bins
    from maskrcnn.whole_file import shown

    if exact:
        files = in_their_order(files)
        if not files:
            raise UserError("--exact: there is no .jpg or .jpeg", hint="leave it out for other images")
    account = Account(False, len(files), 0, True, None)
    wrote = kept = spaced = 0
    with progress(len(files), "images") as advance:
        for outcome in write_bins(files, out, bins, workers, exact):
            if isinstance(outcome, Wrote):
                wrote, kept = wrote + (not outcome.kept), kept + outcome.kept
                spaced += " " in outcome.listed.path
            else:
                account.left_out(outcome.error)
            advance()
    already = f", {kept} were there" if kept else ""
    shape = " x ".join(map(str, (3, *bins.size) if bins.dtype == "float32" else (*bins.size, 3)))
    print(f"{wrote} written{already}, {shape} {bins.dtype}   -> {shown(out)}")
    if spaced:
        print(
            f"note: {spaced} paths in {shown(info_of(out))} have spaces, which their scripts cannot read",
            file=sys.stderr,
        )
    account.finish()


@app.command()
def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    bins: Annotated[Path | None, typer.Argument(metavar="BINS", help=BINS)] = None,
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help=RESULTS)] = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help=SIZE)] = None,
    output_dirname: Annotated[str | None, typer.Option(metavar="NAME", help=DIRECTORY)] = None,
    compact: Annotated[bool, typer.Option("--compact", help=COMPACT)] = False,
    outfmt: Annotated[Literal["BIN", "NPY", "TXT"], typer.Option(help=KIND)] = "BIN",
    loop: Annotated[int, typer.Option(min=1, help=LOOP)] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")] = 1,
    warmup: Annotated[int, typer.Option(min=0, help="Runs before those that count.")] = 1,
    noise: Annotated[bool, typer.Option("--noise", help="Without BINS: noise in place of zeros.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda and others of the engine.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the network.")] = None,
    engine: Engine = None,
) -> None:
    """Run a model on every .bin and write three files of each, as ais_infer does, or only time it."""
    from maskrcnn.cli.export import sides
    from maskrcnn.compat.ascend.run import Manner, files_in
    from maskrcnn.predict import open_model

    files = files_in(bins) if bins else []
    predictor = open_model(model, device, batch, threads, engine)
    manner = Manner(loop, predictor.batch, outfmt, compact, warmup)
    where = None if out is None else results_folder(out, output_dirname)
    wanted = sides(size) if size else None
    lines = run_all(predictor, bins, files, where, manner, wanted, noise)
    print("\n".join(lines))


def results_folder(out: Path, name: str | None) -> Path:
    """The folder for the results of one run, as ais_infer names it."""
    import datetime

    return out / (name or datetime.datetime.now().strftime(CLOCK))


def run_all(
    predictor: "Predictor",
    folder: Path | None,
    files: list[Path],
    out: Path | None,
    manner: "Manner",
    size: tuple[int, int] | None = None,
    noise: bool = False,
    bench: bool = False,
) -> list[str]:
    """Run a model on files, or without any; the lines that ais_infer logs at the end, or ais_bench."""
    from dataclasses import asdict, replace

    from maskrcnn.cli.account import progress
    from maskrcnn.compat.ascend.run import bins_of, run_alone, run_bins, runs_of
    from maskrcnn.compat.ascend.summary import write_summary
    from maskrcnn.whole_file import shown

    bins = bins_of(predictor, folder, size)
    runs = runs_of(predictor, bins)
    if not files:
        return run_alone(runs, bins, manner, noise).lines(bench)
    with progress(len(files), "images") as advance:
        summary = run_bins(runs, bins, files, out, manner, lambda done, total: advance())
    lines = summary.lines(bench)
    if out is not None:
        spec = replace(predictor.spec, preprocess=bins.spec.preprocess)
        write_summary(summary, out, asdict(manner), replace(bins, spec=spec), bench)
        lines.append(f"-> {shown(out)}")
    return lines


@app.command("eval")
def evaluate(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help=FOUND)],
    annotations: Annotated[Path, typer.Option(help="COCO annotation file.")],
    info: Annotated[Path | None, typer.Option(help=INFO)] = None,
    model: Annotated[
        str | None, typer.Option(help="Model that the results are of, where they do not say.")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help=SIZE)] = None,
    out: Annotated[Path | None, typer.Option(help=OUT)] = None,
    draw: Annotated[bool, typer.Option("--draw", help=DRAW)] = False,
    score: Annotated[float, typer.Option(min=0, max=1, help=SCORE)] = 0.05,
    exact: Annotated[bool, typer.Option("--exact", help=EXACT)] = False,
    partial: Annotated[bool, typer.Option("--partial", help=PARTIAL)] = False,
    save: Annotated[Path | None, typer.Option(help="Write the COCO results list here.")] = None,
    at_least: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help=AT_LEAST)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure average precision of results in files, of ours or of ais_infer; write pictures and text."""
    from maskrcnn.cli.account import progress
    from maskrcnn.cli.eval import limit_of, tell
    from maskrcnn.cli.export import sides
    from maskrcnn.compat.ascend.evaluate import Written
    from maskrcnn.compat.ascend.measure import Told, measure, open_results

    if draw and out is None:
        raise UserError("--draw: there is no folder for the pictures", hint="name it with --out")
    limits = [limit_of(text) for text in at_least or []]
    opened = open_results(results, Told(info, model, sides(size) if size else None, exact))
    written = Written(out, draw, score) if out else None
    with progress(len(opened.suffixes), "images") as advance:
        metrics = measure(opened, annotations, partial, written, save, lambda done, total: advance())
    tell(metrics, limits, as_json)
