"""One HTML page about a run: curves, average precision, classes, and the best and worst pictures."""

import base64
import html
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from maskrcnn.evaluation.metrics import Metrics
from maskrcnn.model.losses import LOSS_NAMES
from maskrcnn.training.progress import Line, read_metrics
from maskrcnn.training.validation import Judged
from maskrcnn.whole_file import whole_file

REPORT = "report.html"
COLOURS = ("#1b6ca8", "#d1495b", "#3a8f5c", "#8f5fbf", "#c78a1e", "#444")
WIDTH, HEIGHT, MARGIN = 640, 220, 42
LONGEST_SIDE = 480
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:right}"
    "td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:0 1rem 1rem 0}"
    "img{max-width:100%}svg{max-width:100%;height:auto}@media(prefers-color-scheme:dark)"
    "{body{background:#16181c;color:#ddd}svg{background:#f6f6f6}}"
)


def write_report(out: Path, judged: Judged | None) -> Path:
    """The page of what a folder's metrics.jsonl holds, and of the last evaluation; -> its path."""
    lines = read_metrics(out)
    losses = [line for line in lines if "total" in line]
    measured = [line for line in lines if "bbox/AP" in line]
    parts = [f"<h1>{html.escape(out.name)}</h1>", _summary(losses, measured)]
    parts += ["<h2>Losses</h2>", chart(losses, LOSS_NAMES)]
    if measured:
        names = [name for name in ("segm/AP", "segm/AP50", "bbox/AP", "bbox/AP50") if name in measured[0]]
        parts += ["<h2>Average precision</h2>", chart(measured, names, top=1.0), _precisions(measured, names)]
    if judged is not None:
        parts += ["<h2>Classes</h2>", _classes(judged.metrics), "<h2>Pictures</h2>", *_pictures(judged)]
    parts += ["<h2>Learning rate and speed</h2>", chart(losses, ("learning_rate",))]
    parts += [chart(losses, ("images_per_second",))]
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(out.name)}</title><style>{STYLE}</style>"
    with whole_file(out / REPORT) as temporary:
        temporary.write_text(page + "\n".join(parts), encoding="utf-8")
    return out / REPORT


def chart(lines: Sequence[Line], names: Sequence[str], top: float | None = None) -> str:
    """Curves over steps as SVG, one for each name, with the last value beside its name."""
    points = {
        name: [(line["step"], line[name]) for line in lines if line.get(name) is not None] for name in names
    }
    points = {name: found for name, found in points.items() if found}
    if not points:
        return "<p>nothing was measured</p>"
    last = max(float(step or 0) for found in points.values() for step, _ in found)
    high = top or max(float(value or 0) for found in points.values() for _, value in found) or 1.0
    shapes = []
    for colour, (name, found) in zip(COLOURS, points.items(), strict=False):
        path = " ".join(f"{_x(step, last):.1f},{_y(value, high):.1f}" for step, value in found)
        shapes.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>')
        height = 16 + 16 * len(shapes) // 2
        shapes.append(
            f'<text x="{WIDTH + 6}" y="{height}" fill="{colour}">{name} {float(found[-1][1] or 0):.4g}</text>'
        )
    axes = (
        f'<path d="M{MARGIN} 8V{HEIGHT - 24}H{WIDTH}" fill="none" stroke="#999"/>'
        f'<text x="{MARGIN - 4}" y="16" text-anchor="end">{high:.3g}</text>'
        f'<text x="{MARGIN - 4}" y="{HEIGHT - 24}" text-anchor="end">0</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">step {last:.0f}</text>'
    )
    box = (
        f'viewBox="0 0 {WIDTH + 190} {HEIGHT}" width="{WIDTH + 190}" font-size="12" font-family="sans-serif"'
    )
    return f"<svg {box}>{axes}{''.join(shapes)}</svg>"


def _x(step: float | int | None, last: float) -> float:
    return MARGIN + (WIDTH - MARGIN) * float(step or 0) / max(last, 1)


def _y(value: float | int | None, high: float) -> float:
    return HEIGHT - 24 - (HEIGHT - 32) * min(max(float(value or 0) / high, 0), 1)


def _summary(losses: Sequence[Line], measured: Sequence[Line]) -> str:
    words = [f"{losses[-1]['step']} steps" if losses else "no step"]
    name = "segm/AP" if measured and "segm/AP" in measured[0] else "bbox/AP"
    if measured:
        best = max(measured, key=lambda line: float(line.get(name) or 0))
        words.append(f"best {name} {100 * float(best.get(name) or 0):.1f} at step {best['step']}")
    return f"<p>{', '.join(words)}</p>"


def _precisions(measured: Sequence[Line], names: Sequence[str]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("step", *names))
    rows = [
        "".join(f"<td>{100 * float(line.get(name) or 0):.1f}</td>" for name in names) for line in measured
    ]
    steps = [f"<tr><td>{line['step']}</td>{row}</tr>" for line, row in zip(measured, rows, strict=True)]
    return f"<table><tr>{head}</tr>{''.join(steps)}</table>"


def _classes(metrics: Metrics) -> str:
    head = "".join(f"<th>{each.kind} {name}</th>" for each in metrics.kinds for name in ("AP", "AP50"))
    rows = []
    for index, one in enumerate(metrics.kinds[0].classes):
        numbers = [
            number for each in metrics.kinds for number in (each.classes[index].ap, each.classes[index].ap50)
        ]
        cells = "".join(
            f"<td>{'n/a' if np.isnan(number) else f'{100 * number:.1f}'}</td>" for number in numbers
        )
        rows.append(f"<tr><td>{html.escape(one.name)}</td><td>{one.objects}</td>{cells}</tr>")
    return f"<table><tr><th>class</th><th>objects</th>{head}</tr>{''.join(rows)}</table>"


def _pictures(judged: Judged) -> Iterator[str]:
    """Best first."""

    def f1(name: str) -> float:
        right, wrong, missed = judged.counts[name]
        return 2 * right / max(2 * right + wrong + missed, 1)

    for name in sorted(judged.pictures, key=f1, reverse=True):
        right, wrong, missed = judged.counts[name]
        words = f"{name}: F1 {f1(name):.2f}; {right} right, {wrong} wrong, {missed} missed"
        source = f"data:image/jpeg;base64,{_jpeg(judged.pictures[name])}"
        yield f'<figure><img src="{source}" alt=""><figcaption>{html.escape(words)}</figcaption></figure>'


def _jpeg(image: np.ndarray) -> str:
    scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    _, contents = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    return base64.b64encode(contents.tobytes()).decode("ascii")
