"""The result lists of mindspore-lab's eval.py: `label_id` in every item, and a file of each process."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn.whole_file import disk_errors_told, whole_file

if TYPE_CHECKING:
    from maskrcnn.evaluation.ground_truth import GroundTruth

_EPOCH = re.compile(r"_epoch(\d+)_")


def lone_file(save_dir: Path) -> Path:
    """`eval/predict_DATE.json`, of a second that no other has: theirs of one second overwrite each other."""
    when = datetime.now()
    while (path := save_dir / "eval" / f"predict_{when:%Y_%m_%d_%H_%M_%S}.json").exists():
        when += timedelta(seconds=1)
    return path


def files_of_processes(save_dir: Path, checkpoint: Path, count: int, alone: bool) -> list[Path]:
    """`eval_parallel/eval_epochE-step0/epochE-step0-rankR.json` of every process.

    alone: the epoch is 0, as their eval.py has it; of several checkpoints, which overwrite each other there,
    it is that of the checkpoint's name.
    """
    match = None if alone else _EPOCH.search(checkpoint.name)
    place = f"epoch{int(match[1]) if match else 0}-step0"
    folder = save_dir / "eval_parallel" / f"eval_{place}"
    return [folder / f"{place}-rank{rank}.json" for rank in range(count)]


def write_results(found: Path, paths: list[Path], truth: "GroundTruth") -> None:
    """The items that our evaluation saved in `found`, as theirs are, each in the file of its process.

    Process R of N has every N-th image from R on. Raises UserError where the disk refuses.
    """
    ranks = {image_id: row % len(paths) for row, image_id in enumerate(truth.image_ids)}
    labels = {category: label for label, category in enumerate(sorted(truth.category_ids))}
    with ExitStack() as stack:
        files = []
        for path in paths:
            temporary = stack.enter_context(whole_file(path))
            files.append(stack.enter_context(temporary.open("w", encoding="utf-8")))
        before = ["["] * len(paths)
        with disk_errors_told(paths[0]):
            for item in _items(found):
                rank = ranks[item["image_id"]]
                item["label_id"] = labels[item["category_id"]]
                files[rank].write(before[rank] + json.dumps(item))
                before[rank] = ", "
            for file, begun in zip(files, before, strict=True):
                file.write("]" if begun == ", " else "[]")


def _items(path: Path) -> Iterator[dict[str, Any]]:
    """One at a time: `maskrcnn eval --save` writes each on a line of its own."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            text = line.strip().rstrip(",")
            if text not in ("[", "]", "[]"):
                yield json.loads(text)
