"""Images one by one: predicted, written and told of."""

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskrcnn.cli.account import Account, counts, progress
from maskrcnn.cli.json_lines import json_line
from maskrcnn.stream import Finished, Found, Unreadable, predict_files
from maskrcnn.whole_file import shown

if TYPE_CHECKING:
    from maskrcnn.media.find import Stills
    from maskrcnn.predict import Predictor
    from maskrcnn.results import Output, Written


@dataclass(frozen=True)
class _Done:
    written: "Written"
    line: str


def predict_stills(predictor: "Predictor", stills: "Stills", output: "Output", account: Account) -> None:
    """Every image, in order; one that cannot be read is left out."""
    outcomes = predict_files(
        predictor, stills.files, _writer(output, account.stream), "image" in output.kinds
    )
    done = 0
    with progress(len(stills.files), "images") as advance, closing(outcomes):  # type: ignore[type-var]
        try:
            for outcome in outcomes:
                if isinstance(outcome, Unreadable):
                    account.left_out(outcome.error)
                else:
                    _tell(outcome, output.score, account)
                done += 1
                advance()
        except KeyboardInterrupt:
            print(f"stopped: {done} of {len(stills.files)} images are done", file=sys.stderr)
            raise


def _writer(output: "Output", stream: bool) -> Callable[[Found], _Done]:
    def write(found: Found) -> _Done:
        place = found.file.place or str(found.file.path)
        line = json_line(place, found.detections.above(output.score)) if stream else ""
        return _Done(output.write(found), line)

    return write


def _tell(finished: Finished[_Done], score: float, account: Account) -> None:
    found, written = finished.found, finished.written.written
    account.json_line(finished.written.line)
    account.written(written)
    parts = [counts(found.detections.above(score)), f"{found.milliseconds:.0f} ms"]
    if written.paths:
        parts.append(f"-> {shown(written.paths[0])}")
    account.line(shown(found.file.name), *parts)
