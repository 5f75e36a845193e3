"""A picture of measured times: a bar for each model, divided by stages."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from maskrcnn.bench.timing import Report
from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown, whole_file

SUFFIXES = (".png", ".jpg", ".jpeg")
WIDTH, ROW, MARGIN, FONT = 1200, 44, 24, 18
BAR = 26  # of the height of a row
RIGHT = 300  # beside the longest bar, for its words
INK, PALE, PAPER = (34, 34, 34), (150, 150, 150), (255, 255, 255)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# Okabe and Ito's colours, which people who see fewer colours can tell apart.
COLOURS = {
    "decode": (230, 159, 0),
    "resize": (240, 228, 66),
    "network": (0, 114, 178),
    "masks": (0, 158, 115),
    "draw": (204, 121, 167),
}


def check_plot_name(path: Path) -> None:
    """Raises UserError for a file that cannot hold a plot."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"--plot {shown(path)}: no picture is written as {path.suffix or 'a file without suffix'}",
            hint=f"let its name end in {' or '.join(SUFFIXES)}",
        )


def write_plot(report: Report, path: Path) -> None:
    """Draw the median milliseconds of a run into a .png or .jpg. Raises UserError if the disk refuses."""
    check_plot_name(path)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    with whole_file(path) as temporary:
        plot(report).save(temporary, kind)


def plot(report: Report) -> Image.Image:
    """A bar a model from top to bottom, with a whisker from the fastest run to nine tenths of them."""
    font, small = ImageFont.load_default(FONT), ImageFont.load_default(FONT - 4)
    labels = [_shortened(label, font) for label in report.labels()]
    left = MARGIN + 12 + max(int(font.getlength(label)) for label in labels)
    top = MARGIN + ROW
    height = top + ROW * len(labels) + ROW + MARGIN
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    canvas = ImageDraw.Draw(picture)
    longest = max(each.latency().p90 for each in report.models)
    scale = (WIDTH - left - RIGHT - MARGIN) / longest
    names = [stage.name for stage in report.models[0].stages() if stage.share is not None]
    _legend(canvas, names if len(names) > 1 else [], left, font)
    for number, (each, label) in enumerate(zip(report.models, labels, strict=True)):
        middle = top + number * ROW + ROW // 2
        canvas.text((left - 12, middle), label, INK, font, anchor="rm")
        found = each.latency()
        at = float(left)
        for stage in each.stages():
            if stage.share is not None:
                end = at + stage.share * found.p50 * scale
                canvas.rectangle((at, middle - BAR // 2, end, middle + BAR // 2), COLOURS[stage.name])
                at = end
        low, high = left + found.min * scale, left + found.p90 * scale
        canvas.line((low, middle, high, middle), INK, 2)
        for end in (low, high):
            canvas.line((end, middle - 6, end, middle + 6), INK, 2)
        speed = "" if number == 0 else f"   {report.speeds()[number].median:.2f} x as fast"
        place = (max(at, high) + 12, middle)
        canvas.text(place, f"{found.p50:.1f} ms   {each.fps:.1f} images/s{speed}", INK, font, anchor="lm")
    canvas.text((MARGIN, height - MARGIN), report.machine.words(), PALE, small, anchor="ls")
    return picture


def _shortened(label: str, font: Font) -> str:
    """Its end, which tells one file from another, as far as there is room."""
    start = 0
    while font.getlength(f"...{label[start:]}") > WIDTH // 3:
        start += 1
    return f"...{label[start:]}" if start else label


def _legend(canvas: ImageDraw.ImageDraw, names: list[str], left: int, font: Font) -> None:
    title = "median ms of a run, fastest to p90"
    canvas.text((left, MARGIN), title, INK, font, anchor="lt")
    at = left + font.getlength(title) + 32
    for name in names:
        canvas.rectangle((at, MARGIN, at + FONT, MARGIN + FONT), COLOURS[name])
        canvas.text((at + FONT + 8, MARGIN), name, INK, font, anchor="lt")
        at += FONT + 32 + font.getlength(name)
