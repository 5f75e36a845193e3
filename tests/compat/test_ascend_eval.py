"""Results in files measured: of ours and of ais_infer, as their script rounds, and never all at once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bright_boxes import SCENES, WINDOW, annotations, our_model, photographs, their_model

from maskrcnn.backends.contracts.ascend import mmdetection_spec
from maskrcnn.compat.ascend import evaluate as evaluating
from maskrcnn.compat.ascend.bins import Bins, Listed
from maskrcnn.compat.ascend.evaluate import Written, items, listed_images, results_below, text_lines
from maskrcnn.compat.ascend.exact import exact_geometry, exact_rles
from maskrcnn.compat.ascend.measure import Told, measure, open_results
from maskrcnn.compat.ascend.outputs import Outputs, save
from maskrcnn.compat.ascend.run import Manner, bins_of, files_in, run_bins, runs_of
from maskrcnn.compat.ascend.summary import write_summary
from maskrcnn.compat.ascend.write import write_bins
from maskrcnn.detections import Detections, Raw
from maskrcnn.errors import UserError
from maskrcnn.evaluation.class_mapping import ClassMapping
from maskrcnn.evaluation.ground_truth import read_ground_truth
from maskrcnn.images import find_images
from maskrcnn.predict import Predictor, model_path
from maskrcnn.presets import COCO
from maskrcnn.stored_spec import stored_spec

pytest.importorskip("hotcoco")

SPEC = mmdetection_spec(WINDOW)
STEMS = sorted(Path(name).stem for name in SCENES)


def results(
    tmp_path: Path, predictor: Predictor, told: bool = True, bins: Bins | None = None, **manner: Any
) -> Path:
    """The files that an engine leaves of the scenes; told: with how they are to be read."""
    folder, out = tmp_path / "bins", tmp_path / "out"
    if not folder.exists():
        list(write_bins(find_images([photographs(tmp_path / "val")]), folder, bins or Bins(SPEC)))
    described = bins_of(predictor, folder, None)
    summary = run_bins(runs_of(predictor, described), described, files_in(folder), out, Manner(**manner))
    if told:
        write_summary(
            summary,
            out,
            {},
            replace(described, spec=replace(predictor.spec, preprocess=described.spec.preprocess)),
        )
    return out


@pytest.mark.parametrize("whose", ["theirs", "ours"])
@pytest.mark.parametrize("compact", [False, True])
def test_an_engine_that_finds_every_object_has_an_average_precision_of_1(
    tmp_path: Path, whose: str, compact: bool
) -> None:
    predictor = their_model() if whose == "theirs" else our_model()
    out = results(tmp_path, predictor, compact=compact)
    numbers = measure(open_results(out, Told()), annotations(tmp_path / "truth.json")).numbers()
    assert (numbers["bbox/AP75"], numbers["segm/AP75"]) == (1, 1)
    assert min(numbers["bbox/AP"], numbers["segm/AP"]) > 0.9


def test_images_at_the_top_left_are_measured_as_they_lie(tmp_path: Path) -> None:
    """What `--size` without `--letterbox` writes: padding right and below, and the size told to the model."""
    fitted = replace(SPEC.preprocess, resize="fit_window", pad_to_window=True)
    spec = replace(SPEC, preprocess=fitted, exported=None)
    predictor = our_model(spec)
    out = results(tmp_path, predictor, bins=Bins(spec), compact=True)
    sizes = predictor.backend.sizes  # type: ignore[attr-defined]
    assert [[128, 170]] in sizes  # 120 x 160 in 128 x 192
    with pytest.raises(UserError, match="are no letterbox"):
        open_results(out, Told(exact=True))
    numbers = measure(open_results(out, Told()), annotations(tmp_path / "truth.json")).numbers()
    assert (numbers["bbox/AP75"], numbers["segm/AP75"]) == (1, 1)


def test_results_of_ais_infer_are_read_with_the_list_of_the_images(tmp_path: Path) -> None:
    out = results(tmp_path, their_model(), told=False)
    (tmp_path / "bins.json").unlink()
    told = Told(info=tmp_path / "bins.info", size=WINDOW)
    numbers = measure(open_results(out, told), annotations(tmp_path / "truth.json")).numbers()
    assert (numbers["bbox/AP75"], numbers["segm/AP75"]) == (1, 1)


def test_results_of_ais_infer_are_found_by_the_names_of_the_images_alone(tmp_path: Path) -> None:
    out = results(tmp_path, their_model(), told=False)
    opened = open_results(tmp_path / "out", Told(size=WINDOW))
    assert opened.folder == out
    numbers = measure(opened, annotations(tmp_path / "truth.json")).numbers()
    assert numbers["bbox/AP75"] == 1


def test_an_image_is_not_taken_for_one_whose_name_ends_like_it(tmp_path: Path) -> None:
    """Their pattern *0139_0.bin matches 000000100139 as well."""
    truth = read_ground_truth(annotations(tmp_path / "truth.json"))
    found = listed_images(truth, (), dict.fromkeys(["000000100139", "000000000285"], ".bin"))
    assert [image and image.stem for image in found] == [None, "000000000285", "000000100139"]


def test_an_image_is_found_by_its_folder_where_names_are_shared(tmp_path: Path) -> None:
    content = {
        "images": [
            {"id": n, "file_name": f"{f}/same.jpg", "height": 20, "width": 30} for n, f in enumerate("xy")
        ],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    truth = read_ground_truth(tmp_path / "truth.json")
    known = [Listed(f"{folder}_same", f"data/{folder}/same.jpg", (20, 30)) for folder in "yx"]
    found = listed_images(truth, known, {"x_same": ".bin", "y_same": ".bin"})
    assert [image and image.stem for image in found] == ["x_same", "y_same"]


def test_missing_results_are_told_and_may_be_left_out(tmp_path: Path) -> None:
    out, truth = results(tmp_path, their_model(), compact=True), annotations(tmp_path / "truth.json")
    (out / f"{STEMS[1]}_0.bin").unlink()
    with pytest.raises(
        UserError, match=r"1 of 3 images of .* have no results, the first is 000000000285\.jpg"
    ):
        measure(open_results(out, Told()), truth)
    metrics = measure(open_results(out, Told()), truth, partial=True)
    assert (metrics.images, metrics.objects, metrics.numbers()["bbox/AP75"]) == (2, 2, 1)
    assert any("1 of 3 images" in note for note in metrics.notes)


def test_an_image_of_another_size_than_its_annotations_is_named(tmp_path: Path) -> None:
    out, truth = results(tmp_path, their_model(), compact=True), annotations(tmp_path / "truth.json")
    content = json.loads(truth.read_text())
    content["images"][0]["width"] = 161
    truth.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"139\.jpg: was 160 x 120 pixels, .* has it as 161 x 120"):
        measure(open_results(out, Told()), truth)


def test_the_last_run_below_a_folder_is_measured(tmp_path: Path) -> None:
    out = results(tmp_path, their_model(), compact=True)
    for name in ("2022_12_20-14_15_48", "2022_12_21-00_00_00"):
        shutil.copytree(out, tmp_path / "result" / name)
    assert results_below(tmp_path / "result").name == "2022_12_21-00_00_00"
    with pytest.raises(UserError, match="holds no results"):
        results_below(tmp_path / "val")
    with pytest.raises(UserError, match="cannot be read"):
        results_below(tmp_path / "nowhere")


def test_pictures_and_text_are_left_on_the_way(tmp_path: Path) -> None:
    out, truth = results(tmp_path, their_model(), compact=True), annotations(tmp_path / "truth.json")
    measure(
        open_results(out, Told()),
        truth,
        written=Written(tmp_path / "seen", draw=True),
        save=tmp_path / "list.json",
    )
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == sorted(
        f"{stem}{suffix}" for stem in STEMS for suffix in (".jpg", ".txt")
    )
    words = (tmp_path / "seen" / "000000000285.txt").read_text().split()
    assert (words[0], words[1]) == ("cat", "0.900000")
    np.testing.assert_allclose([float(word) for word in words[2:]], [8, 16, 40, 56], atol=0.6)
    picture = cv2.imread(str(tmp_path / "seen" / "000000000285.jpg"))
    assert picture.shape == (64, 64, 3)
    assert np.ptp(picture[30, 20]) > 20  # white before, in the class's colour now
    listed = json.loads((tmp_path / "list.json").read_text())
    assert [(item["image_id"], item["category_id"]) for item in listed] == [
        (139, 17),
        (285, 17),
        (100139, 17),
    ]


def test_a_line_of_text_has_class_score_and_corners() -> None:
    detections = Detections(
        np.array([[1, 2, 3.5, 4]], np.float32),
        np.array([0.5], np.float32),
        np.array([9]),
        np.zeros((1, 28, 28), np.float32),
        (10, 10),
        COCO,
    )
    assert list(text_lines(detections)) == ["traffic light 0.500000 1.000 2.000 3.500 4.000\n"]


def test_images_are_read_as_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of forty images no more than the threads' next eight are opened before the first is used."""
    outputs = Outputs(
        np.zeros((100, 5), np.float32), np.zeros(100, np.int32), np.zeros((100, 1, 28, 28), np.float32), 80
    )
    opened = []
    monkeypatch.setattr(evaluating, "load", lambda folder, stem, *_: opened.append(stem) or outputs)
    images = [Listed(str(n), f"{n}.jpg", (64, 64)) for n in range(40)]
    content = {"images": [{"id": n, "file_name": f"{n}.jpg", "height": 64, "width": 64} for n in range(40)]}
    (tmp_path / "t.json").write_text(json.dumps(content | {"annotations": [], "categories": [{"id": 1}]}))
    some = evaluating.Results(tmp_path, Bins(SPEC), dict.fromkeys(map(str, range(40)), ".bin"))
    groups = items(some, read_ground_truth(tmp_path / "t.json"), images, ClassMapping((1,) * 80, ()))
    assert next(groups) == []
    assert len(opened) <= 9
    assert len(list(groups)) == 39


# What `mmdet_postprocess.py` does, by hand and in torch.


def test_exact_boxes_have_one_scale_and_borders_of_the_unrounded_size() -> None:
    """640 x 427 in 1216 x 1216: 811.3 high, which leaves 202.3; what was resized is 811 high."""
    lies = exact_geometry((427, 640), (1216, 1216))
    assert (lies.offset_net, lies.size_net, lies.scale_net) == ((202, 0), (811, 1216), 1.9)
    np.testing.assert_allclose(lies.to_image(np.array([[19, 202, 38, 221]])), [[10, 0, 20, 10]], rtol=1e-6)
    # 500 x 333: 1216 x 809.86, border 203.07; of what was resized, 809 wide, 203.5.
    assert exact_geometry((500, 333), (1216, 1216)).offset_net == (0, 203)
    # 334 x 500: 812.288 high, border 201.86 -> 201, where (1216 - 812) // 2 is 202.
    assert exact_geometry((334, 500), (1216, 1216)).offset_net == (201, 0)
    assert Bins().geometry((334, 500)).offset_net == (202, 0)


def test_exact_masks_are_those_of_their_script() -> None:
    torch = pytest.importorskip("torch")
    from hotcoco import mask as coco_mask
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    chance = np.random.default_rng(0)
    size, window = (150, 230), (256, 256)
    boxes = np.array([[[10, 60, 120, 200], [100, 44, 256, 180], [30, 50, 40, 90]]], np.float32)
    smooth = [cv2.GaussianBlur(chance.random((28, 28)).astype(np.float32), (9, 9), 3) for _ in range(3)]
    masks = np.stack([(each - each.min()) / (each.max() - each.min()) for each in smooth])[None]
    raw = Raw(boxes, np.array([[0.9, 0.8, 0.7]], np.float32), np.zeros((1, 3), np.int64), masks)
    pasted = paste_masks_in_image(torch.tensor(masks[0])[:, None], torch.tensor(boxes[0]), window) >= 0.5
    scale = min(256 / 150, 256 / 230)
    top, left = int((256 - 150 * scale) // 2), int((256 - 230 * scale) // 2)
    inside = pasted[:, :, top : top + int(150 * scale), left : left + int(230 * scale)].float()
    resized = torch.nn.functional.interpolate(inside, size, mode="bilinear", align_corners=False)
    wanted = resized[:, 0].numpy().astype(np.uint8)
    found = [coco_mask.decode(rle) for rle in exact_rles(raw, size, window)]
    assert wanted.sum() > 5000
    # Where all four neighbours are inside, torch's weights may sum up to a little less than 1.
    differ = sum(int((a != b).sum()) for a, b in zip(found, wanted, strict=True))
    assert differ <= 0.005 * wanted.sum()


def test_their_roundings_cost_average_precision(tmp_path: Path) -> None:
    out, truth = results(tmp_path, their_model(), compact=True), annotations(tmp_path / "truth.json")
    ours = measure(open_results(out, Told()), truth).numbers()
    theirs = measure(open_results(out, Told(exact=True)), truth).numbers()
    assert theirs["segm/AP"] < ours["segm/AP"]
    assert theirs["bbox/AP"] <= ours["bbox/AP"]


def test_a_model_that_is_named_says_the_classes(tmp_path: Path) -> None:
    out = results(tmp_path, their_model(), compact=True)
    opened = open_results(out, Told(model="example"))
    assert opened.bins.spec.preprocess == SPEC.preprocess
    assert opened.bins.spec.model == stored_spec(model_path("example")).model
    with pytest.raises(UserError, match="its bins are 128x192"):
        open_results(out, Told(size=(64, 64)))


def test_a_list_of_images_that_was_not_finished_is_named(tmp_path: Path) -> None:
    out = results(tmp_path, their_model(), told=False, compact=True)
    values = json.loads((tmp_path / "bins.json").read_text())
    (tmp_path / "bins.json").write_text(json.dumps(values | {"images": []}, separators=(",", ":")))
    with pytest.raises(UserError, match="not all of its images are written"):
        open_results(out, Told(info=tmp_path / "bins.json"))


def test_a_file_that_was_torn_is_named(tmp_path: Path) -> None:
    out = results(tmp_path, their_model(), compact=True)
    save_torn = out / f"{STEMS[0]}_2.bin"
    save_torn.write_bytes(save_torn.read_bytes()[:-4])
    with pytest.raises(UserError, match=rf"{STEMS[0]}_2\.bin: holds"):
        measure(open_results(out, Told()), annotations(tmp_path / "truth.json"))


def test_rows_without_a_score_are_no_detections(tmp_path: Path) -> None:
    dets, labels = np.zeros((100, 5), np.float32), np.full(100, 80, np.int32)
    dets[0], labels[0] = [10, 10, 50, 50, 0.7], 15
    save(Outputs(dets, labels, np.ones((100, 1, 28, 28), np.float32), 80), tmp_path, "a", compact=True)
    opened = evaluating.Results(tmp_path, Bins(SPEC), {"a": ".bin"})
    detections, _ = opened.detections(Listed("a", "a.jpg", (64, 64)))
    assert (len(detections), detections.labels.tolist()) == (1, [15])
