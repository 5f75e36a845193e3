"""`--tiles` of predict and eval is what `Tiled` does in Python, and a wrong value is told."""

import json
from pathlib import Path

import pytest
from commands import Run
from finds import Finds, files_in

from maskrcnn import read_image
from maskrcnn.predict import Predictor
from maskrcnn.tiles import Tiled


def test_predict_in_tiles_writes_what_tiled_finds(
    run: Run, finds: Finds, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    photograph, out = photographs / "1.jpg", tmp_path / "out"
    done = run("predict", model_file, photograph, "--tiles", "48,0.1", "--save", "json", "--out", out)
    assert done.code == 0, done.err
    (found,) = Tiled(Predictor(Finds()), 48, 0.1)([read_image(photograph)])
    assert len(found) > 1
    assert json.loads((out / "1.json").read_text()) == {"file_name": "1.jpg", **found.to_json()}


@pytest.mark.parametrize("value", ["many", "8", "640,2"])
def test_a_wrong_value_is_told_and_nothing_is_written(
    run: Run, finds: Finds, model_file: Path, photographs: Path, tmp_path: Path, value: str
) -> None:
    done = run("predict", model_file, photographs / "1.jpg", "--tiles", value, "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert "\nhint: " in done.err
    assert files_in(tmp_path / "out") == []


def test_eval_in_tiles_scores_what_tiled_finds(
    run: Run, finds: Finds, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    contents = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 60, "width": 90}],
        "categories": [{"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 17, "bbox": [24, 24, 21, 21], "area": 441, "iscrowd": 0}
        ],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(contents))
    given = ("eval", model_file, "--images", photographs, "--annotations", tmp_path / "boxes.json", "--json")
    plain, in_tiles = (json.loads(run(*given, *more).out) for more in ((), ("--tiles", "48")))
    # The engine finds 16..30 of a tile's 32 pixels: 24..45 of 48 pixels, but 30..56 of the image.
    assert plain["bbox/AP50"] == 0
    assert in_tiles["bbox/AR100"] == 1
