"""Real photographs through files: the same average precision as without them."""

import json
from pathlib import Path

import pytest

from maskrcnn.compat.ascend.bins import bins_for
from maskrcnn.compat.ascend.measure import Told, measure, open_results
from maskrcnn.compat.ascend.run import Manner, bins_of, files_in, run_bins, runs_of
from maskrcnn.compat.ascend.summary import write_summary
from maskrcnn.compat.ascend.write import write_bins
from maskrcnn.evaluation.class_mapping import map_classes
from maskrcnn.evaluation.ground_truth import read_ground_truth
from maskrcnn.images import find_images
from maskrcnn.predict import Predictor, open_model

pytest.importorskip("hotcoco")

IMAGES = 16
SIZE = (320, 320)


def some(data: Path, folder: Path) -> Path:
    """The annotations of the first photographs, and links to these in `val`."""
    content = json.loads((data / "instances.json").read_text())
    content["images"] = sorted(content["images"], key=lambda image: image["file_name"])[:IMAGES]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in ids]
    (folder / "val").mkdir()
    for image in content["images"]:
        (folder / "val" / image["file_name"]).symlink_to(data / "images" / image["file_name"])
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    return path


def directly(predictor: Predictor, truth_file: Path, preprocess: object) -> dict[str, float]:
    """As `maskrcnn eval` measures it, images prepared as the bins are."""
    from maskrcnn.evaluation.coco_metrics import evaluate
    from maskrcnn.evaluation.photographs import locate, predict_items
    from maskrcnn.evaluation.result_list import results_of
    from maskrcnn.export.check import FedAs

    truth = read_ground_truth(truth_file)
    model = FedAs(predictor, preprocess)  # type: ignore[arg-type]
    mapping = map_classes(model.spec.classes, model.spec.model.classes, truth)
    groups = predict_items(model, truth, locate(truth, truth_file.parent / "val"), mapping)
    return evaluate(truth, results_of((item for group in groups for item in group), truth)).numbers()


@pytest.mark.data
@pytest.mark.parametrize("centred", [False, True])
def test_the_average_precision_of_real_images_is_that_without_files(
    data_dir: Path, tmp_path: Path, centred: bool
) -> None:
    """Padded right and below, and in Ascend's letterbox."""
    pytest.importorskip("torch")
    truth = some(data_dir / "coco_val215", tmp_path)
    bins, folder, out = bins_for("example", SIZE, centred), tmp_path / "bins", tmp_path / "out"
    list(write_bins(find_images([tmp_path / "val"]), folder, bins))
    predictor = open_model("example", "cpu", threads=1)
    described = bins_of(predictor, folder, None)
    manner = Manner(compact=True, warm_up=0)
    summary = run_bins(runs_of(predictor, described), described, files_in(folder), out, manner)
    write_summary(summary, out, {}, described)
    through = measure(open_results(out, Told()), truth).numbers()
    wanted = directly(predictor, truth, bins.spec.preprocess)
    assert wanted["bbox/AP"] > 0.01
    for name in ("bbox/AP", "segm/AP", "bbox/AP50", "segm/AP50"):
        # In points; the way to float32 and back moves scores by some 1e-7.
        assert 100 * through[name] == pytest.approx(100 * wanted[name], abs=0.01), name
