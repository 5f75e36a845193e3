"""The numbers, the letterbox and the command line of IxRT's sample, and what its test benches look for."""

import ast
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from maskrcnn import presets
from maskrcnn.compat.ixrt import Asked, SamplePredictor, commands, main, read_arguments
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.preprocess import prepare
from maskrcnn.spec import Classes, Preprocess, Spec
from maskrcnn.weights.convert import convert
from maskrcnn.weights.convert_back import convert_back
from maskrcnn.weights.model_file import read_spec
from maskrcnn.weights.wts import write_wts

TESTS = Path(__file__).parents[1]


def checkpoint(path: Path, **changes: Any) -> Path:
    """A small .wts file: C4 unless it is said otherwise, norms folded."""
    frameworks = runpy.run_path(str(TESTS / "weights" / "frameworks.py"))
    plan = frameworks["Plan"](**{**frameworks["SMALL"], "neck": "c4", "norm": "", **changes})
    write_wts(path, frameworks["filled"](frameworks["detectron2_shapes"](plan)))
    return path


@pytest.mark.parametrize(("style", "rpn_iou"), [("ixrt", 0.5), ("tensorrtx", 0.7)])
def test_a_style_has_the_numbers_and_the_letterbox_of_its_program(
    tmp_path: Path, style: str, rpn_iou: float
) -> None:
    convert(checkpoint(tmp_path / "maskrcnn.wts"), tmp_path / "m.safetensors", style=style)
    spec = read_spec(tmp_path / "m.safetensors")
    model, fed = spec.model, spec.preprocess
    assert (model.rpn.nms_iou, model.rpn.pre_nms, model.rpn.post_nms) == (rpn_iou, 6000, 1000)
    assert (model.box_head.nms_iou, model.box_head.score_over) == (0.5, 0.05)
    assert model.box_head.soft_nms.method == "linear"
    assert (fed.resize, fed.short, fed.long, fed.pad_value) == ("letterbox", 800, 1067, 128)
    assert (fed.channels, fed.filter, fed.pad_multiple) == ("bgr", "opencv", 1)
    assert (model.mean, model.std) == ((103.53, 116.28, 123.675), (1, 1, 1))


def test_a_model_of_ixrt_is_the_same_wts_file_again(tmp_path: Path) -> None:
    """What its program does by itself, the letterbox, is no difference; a small trunk is."""
    wts = checkpoint(tmp_path / "maskrcnn.wts")
    convert(wts, tmp_path / "m.safetensors", style="ixrt")
    report = convert_back(tmp_path / "m.safetensors", tmp_path / "back.wts", "wts", allow_differences=True)
    assert [words.split(":")[0] for words in report.differences] == ["backbone"]
    assert "RPN_NMS_THRESH = 0.5;" in report.config
    assert "MAX_SIZE" not in report.config
    assert sorted((tmp_path / "back.wts").read_bytes().splitlines()) == sorted(wts.read_bytes().splitlines())


@pytest.mark.parametrize("neck", ["fpn", "dc5"])
def test_a_style_of_a_program_is_for_c4_only(tmp_path: Path, neck: str) -> None:
    with pytest.raises(UserError, match=f"ixrt runs C4 models, and this is {neck.upper()}"):
        convert(checkpoint(tmp_path / "x.wts", neck=neck), tmp_path / "m.safetensors", style="ixrt")


def test_a_style_of_a_program_is_not_for_other_checkpoints(tmp_path: Path) -> None:
    frameworks = runpy.run_path(str(TESTS / "weights" / "frameworks.py"))
    frameworks["detectron2_file"](tmp_path / "x.pkl", neck="c4")
    with pytest.raises(UserError, match="is a checkpoint of detectron2, and --style ixrt is for those of"):
        convert(tmp_path / "x.pkl", tmp_path / "m.safetensors", style="ixrt")


@pytest.mark.parametrize(
    ("size", "size_net", "offset_net"),
    [
        # 800 / 480 is the smaller scale: 1066.67 is cut, and of one spare column none is on the left.
        ((480, 640), (800, 1066), (0, 0)),
        # 1067 / 640: 711.9 is cut, and 44 of 89 spare rows are above.
        ((427, 640), (711, 1067), (44, 0)),
        # 800 / 640: 233 of 467 spare columns are on the left.
        ((640, 480), (800, 600), (0, 233)),
    ],
)
def test_the_letterbox_is_cut_and_centred_as_theirs(
    size: tuple[int, int], size_net: tuple[int, int], offset_net: tuple[int, int]
) -> None:
    image = np.full((*size, 3), (10, 20, 30), np.uint8)
    planes, geometry = prepare(image, presets.TENSORRTX_INPUT)
    assert planes.shape == (3, 800, 1067)
    assert (geometry.size_net, geometry.offset_net) == (size_net, offset_net)
    top, left = offset_net
    inside = planes[:, top : top + size_net[0], left : left + size_net[1]]
    assert (inside == np.array([30, 20, 10])[:, None, None]).all()
    assert planes.sum() == 60 * inside[0].size + 3 * 128 * (800 * 1067 - inside[0].size)
    whole = [left, top, left + size_net[1], top + size_net[0]]
    np.testing.assert_allclose(geometry.to_image([whole]), [[0, 0, size[1], size[0]]], atol=1e-3)


@pytest.mark.parametrize(
    ("line", "verbs"),
    [
        (
            "build_engine --wts_file ./maskrcnn.wts --engine_file ./maskrcnn.engine",
            [
                "convert maskrcnn.wts maskrcnn.safetensors --style ixrt",
                "export maskrcnn.safetensors maskrcnn.engine --size 800x1067 --batch 1 --precision fp16",
            ],
        ),
        (
            "build_engine --wts_file m.wts --engine_file m.xml --img_h 480 --img_w 640",
            [
                "convert m.wts m.safetensors --style ixrt --set preprocess.short=480 "
                "--set preprocess.long=640",
                "export m.safetensors m.xml --size 480x640 --batch 1",
            ],
        ),
        (
            "build_engine --wts_file m.wts --engine_file m.safetensors",
            ["convert m.wts m.safetensors --style ixrt"],
        ),
        (
            "build_engine --wts_file m.wts --engine_file m.safetensors --classes nuts.txt",
            ["convert m.wts m.safetensors --style ixrt --classes nuts.txt"],
        ),
        (
            "run_engine --engine_file m.engine --test_folder ../samples",
            ["predict m.engine ../samples --score 0.05 --batch 1"],
        ),
        (
            "perf --engine_file ./maskrcnn.engine --bsz 1 --fps_target 7.3",
            ["bench maskrcnn.engine --warm-up 5 --loop 20 --batch 1 --at-least fps=7.3 --metric-result"],
        ),
        (
            "acc --engine_file ./maskrcnn.engine --bsz 1 --map_target 0.545 --segm_map_target 0.51 "
            "--dataset_dir ../coco --engine tensorrt",
            [
                "eval maskrcnn.engine --annotations ../coco/annotations/instances_val2017.json "
                "--images ../coco/images/val2017 --save pred_results.json --batch 1 "
                "--at-least bbox/AP50=0.545 --at-least segm/AP50=0.51 --metric-result --engine tensorrt"
            ],
        ),
    ],
)
def test_an_action_is_these_verbs(line: str, verbs: list[str]) -> None:
    assert [" ".join(words) for words in commands(read_arguments(line.split()))] == verbs


def test_targets_that_are_left_out_are_those_of_the_sample() -> None:
    assert read_arguments(["perf", "--engine_file", "m.engine"]) == Asked("perf", Path("m.engine"))
    asked = Asked("perf", Path("m.engine"))
    assert (asked.fps_target, asked.map_target, asked.segm_map_target) == (7.2, 0.4, 0.4)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("build_engine --engine_file m.engine", "build_engine: --wts_file is missing"),
        ("run_engine --engine_file m.engine", "run_engine: --test_folder is missing"),
        ("acc --engine_file m.engine", "acc: --dataset_dir is missing"),
        ("fly --engine_file m.engine", "invalid choice: 'fly'"),
        ("perf", "required: --engine_file"),
        ("perf --engine_file m.engine --bsz many", "--bsz: invalid int value: 'many'"),
        ("perf --engine_file m.engine --bsz 0", "--bsz 0: is no number of images"),
        ("perf --engine_file m.engine --exact", "--exact: does not go with perf"),
        (
            "acc --engine_file none.engine --dataset_dir none --exact",
            "instances_val2017.json: cannot be read",
        ),
        ("perf --engine_file none.engine", "none.engine: no such model file"),
    ],
)
def test_a_mistake_is_told_in_one_line(capsys: pytest.CaptureFixture[str], line: str, words: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(line.split())
    printed = capsys.readouterr()
    told = [row for row in printed.err.splitlines() if not row.startswith("$ ")]
    assert left.value.code == 2
    assert [row.split(":")[0] for row in told] == ["error", "hint"]
    assert words in told[0]


class Rows:
    """An engine that returns the same rows for an image of 100 x 200 pixels, which it takes as it is."""

    def __init__(self, boxes: list[list[float]], probability: float) -> None:
        self.spec = Spec(
            replace(Spec().model, classes=1, conventions=presets.TENSORRTX),
            Preprocess(resize="letterbox", short=100, long=200, pad_multiple=1),
            Classes(("cat",), (17,)),
        )
        rows = np.array([boxes], np.float32)
        ones = np.ones(rows.shape[:2], np.float32)
        masks = np.full((*ones.shape, 14, 14), probability, np.float32)
        self.raw = Raw(rows, ones * 0.75, np.zeros(ones.shape, np.int64), masks)

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        return self.raw


def sample(boxes: list[list[float]], probability: float = 1.0) -> Any:
    return SamplePredictor(Rows(boxes, probability))([np.zeros((100, 200, 3), np.uint8)])[0]


def test_exactly_means_boxes_of_whole_pixels_and_none_without_area() -> None:
    found = sample([[10.9, 20.2, 30.7, 40.9], [5.1, 5, 5.9, 9], [-3, 90.5, 50, 120]])
    assert [item["bbox"] for item in found.to_coco(1)] == [[10, 20, 20, 20], [0, 90, 50, 10]]


def test_exactly_means_masks_of_bytes_in_the_box() -> None:
    """0.503 is 128 of 255, more than 127; 0.501 is 127, and one half is not passed."""
    (crop, x, y), *_ = sample([[10.9, 20.2, 30.7, 40.9]], 0.503).crops()
    assert (crop.shape, x, y) == ((20, 20), 10, 20)
    assert crop.all()
    (crop, _, _), *_ = sample([[10.9, 20.2, 30.7, 40.9]], 0.501).crops()
    assert not crop.any()


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As the sample wants it: a dog that fills 1.png, and 2.png, which is brighter and has no annotation."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coco" / "images" / "val2017").mkdir(parents=True)
    (tmp_path / "coco" / "annotations").mkdir()
    images = []
    for number in (1, 2):
        cv2.imwrite(f"coco/images/val2017/{number}.png", np.full((32, 64, 3), 100 * number, np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": 32, "width": 64})
    dog = {"id": 1, "image_id": 1, "category_id": 18, "bbox": [0, 0, 64, 32], "area": 2048, "iscrowd": 0}
    contents = {
        "images": images,
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [{**dog, "segmentation": [[0, 0, 64, 0, 64, 32, 0, 32]]}],
    }
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps(contents))
    return tmp_path / "coco"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A graph that finds a dog as large as the image in each one."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    graph = runpy.run_path(str(TESTS / "backends" / "tiny_graph.py"))
    return graph["write_onnx"](tmp_path / "tiny.onnx", graph["spec"]())


def ended(arguments: list[object]) -> int:
    try:
        main([str(each) for each in arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def metrics_in(printed: str) -> dict[str, float]:
    """What their test benches read: the line {'metricResult': ...}."""
    (line,) = [row for row in printed.splitlines() if row.startswith("{'metricResult':")]
    return ast.literal_eval(line)["metricResult"]


@pytest.mark.parametrize(("target", "code", "verdict"), [(0.5, 0, "pass!"), (0.51, 1, "failed!")])
def test_acc_prints_what_their_test_benches_read_and_fails_below_a_target(
    coco: Path, tiny: Path, capsys: pytest.CaptureFixture[str], target: float, code: int, verdict: str
) -> None:
    """The dog that is invented in 2.png comes before the one in 1.png: half of all is right."""
    asked = ["acc", "--engine_file", tiny, "--dataset_dir", coco, "--map_target", target]
    assert ended([*asked, "--segm_map_target", 0, "--threads", 1]) == code
    printed = capsys.readouterr().out
    found = metrics_in(printed)
    assert list(found) == ["E2E time", "bbox mAP@0.5", "segm mAP@0.5"]
    assert found["bbox mAP@0.5"] == 0.5
    rows = printed.splitlines()
    assert f"bbox Accuracy Check : Test 0.5000 >= target {target}" in rows
    assert rows[-1] == verdict
    assert [item["image_id"] for item in json.loads(Path("pred_results.json").read_text())] == [1, 2]


def test_exactly_means_that_images_without_annotations_do_not_count(
    coco: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["acc", "--engine_file", tiny, "--dataset_dir", coco, "--exact"]
    assert ended([*asked, "--map_target", 1, "--segm_map_target", 0]) == 0
    assert metrics_in(capsys.readouterr().out)["bbox mAP@0.5"] == 1
    assert [item["image_id"] for item in json.loads(Path("pred_results.json").read_text())] == [1]
    assert ended([*asked, "--map_target", 1.1]) == 1


def test_a_data_set_without_masks_has_a_box_line_only_and_fails_a_target_of_masks(
    coco: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = coco / "annotations" / "instances_val2017.json"
    contents = json.loads(path.read_text())
    del contents["annotations"][0]["segmentation"]
    path.write_text(json.dumps(contents))
    assert ended(["acc", "--engine_file", tiny, "--dataset_dir", coco, "--map_target", 0]) == 1
    printed = capsys.readouterr().out
    assert list(metrics_in(printed)) == ["E2E time", "bbox mAP@0.5"]
    assert printed.splitlines()[-1] == "failed!"


@pytest.mark.parametrize(("target", "code", "verdict"), [(1e-3, 0, "pass!"), (1e9, 1, "failed!")])
def test_perf_prints_what_their_test_benches_read_and_fails_below_a_target(
    tiny: Path, capsys: pytest.CaptureFixture[str], target: float, code: int, verdict: str
) -> None:
    asked = ["perf", "--engine_file", tiny, "--fps_target", target, "--warm-up", 1, "--loop", 2]
    assert ended([*asked, "--threads", 1]) == code
    rows = capsys.readouterr().out.splitlines()
    start = next(number for number, row in enumerate(rows) if row.startswith("{'metricResult':"))
    fps = metrics_in("\n".join(rows))["FPS"]
    assert rows[start + 1 : start + 3] == ["", f"FPS :  {fps:.3f}"]
    assert rows[start + 3 :] == [f"Performance Check : Test {fps:.3f} >= target {target:g}", verdict]


def test_run_engine_draws_every_image_of_a_folder(coco: Path, tiny: Path) -> None:
    folder = coco / "images" / "val2017"
    assert ended(["run_engine", "--engine_file", tiny, "--test_folder", folder, "--threads", 1]) == 0
    assert sorted(path.name for path in Path("predictions").iterdir()) == ["1.png", "2.png"]


def test_results_that_are_given_took_no_time_here(
    coco: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskrcnn.cli.main import main as run_verb

    item = {"image_id": 1, "category_id": 18, "bbox": [0, 0, 64, 32], "score": 0.9}
    Path("results.json").write_text(json.dumps([item]))
    annotations = str(coco / "annotations" / "instances_val2017.json")
    words = ["eval", "--detections", "results.json", "--annotations", annotations, "--metric-result"]
    monkeypatch.setattr(sys, "argv", ["maskrcnn", *words])
    with pytest.raises(SystemExit):
        run_verb()
    printed = capsys.readouterr().out
    assert metrics_in(printed) == {"bbox mAP@0.5": 1}
    assert "pass!" not in printed


@pytest.mark.data
def test_photographs_are_measured_as_eval_measures_them(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example model on 12 photographs of COCO; what the sample does otherwise moves AP50 by little."""
    monkeypatch.chdir(tmp_path)
    contents = json.loads((data_dir / "coco_val215" / "instances.json").read_text())
    contents["images"] = contents["images"][:12]
    ids = {image["id"] for image in contents["images"]}
    contents["annotations"] = [each for each in contents["annotations"] if each["image_id"] in ids]
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps(contents))
    (tmp_path / "coco" / "images").mkdir()
    (tmp_path / "coco" / "images" / "val2017").symlink_to(data_dir / "coco_val215" / "images")
    asked = ["acc", "--engine_file", "example", "--dataset_dir", "coco", "--map_target", 0.2]
    assert ended([*asked, "--segm_map_target", 0.2, "--threads", 1]) == 0
    usual = metrics_in(capsys.readouterr().out)
    assert ended([*asked, "--segm_map_target", 0.2, "--exact"]) == 0
    exact = metrics_in(capsys.readouterr().out)
    for name in ("bbox mAP@0.5", "segm mAP@0.5"):
        assert exact[name] == pytest.approx(usual[name], abs=0.02)
