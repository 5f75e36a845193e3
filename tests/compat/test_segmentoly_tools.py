"""The demo and the test of segmentoly by their own flags, on its weights and on its OpenVINO graphs."""

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_segmentoly import their_checkpoint

from maskrcnn.compat import segmentoly_demo as demo
from maskrcnn.compat import segmentoly_test as measuring
from maskrcnn.compat.segmentoly_flags import prepared
from maskrcnn.errors import UserError
from maskrcnn.weights.model_file import read_model_file

MODEL = "segmentoly.rcnn.model_zoo.resnet_fpn_mask_rcnn.ResNet50FPNMaskRCNN"
MEAN = ("--mean_pixel", "102.9801", "115.9465", "122.7717")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of 80 classes with their names."""
    return their_checkpoint(tmp_path_factory.mktemp("theirs"), classes=80)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Their layout of COCO with one picture of two persons, in the working folder."""
    monkeypatch.chdir(tmp_path)
    images, annotations = tmp_path / "data/coco/images/val2017", tmp_path / "data/coco/annotations"
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    cv2.imwrite(str(images / "000000000007.png"), noise)
    objects = [
        {
            "id": number,
            "image_id": 7,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [x, 10, 20, 30],
            "area": 600,
            "segmentation": [[x, 10, x + 20, 10, x + 20, 40, x, 40]],
        }
        for number, x in ((1, 5), (2, 50))
    ]
    listed = [{"id": 7, "file_name": "000000000007.png", "width": 90, "height": 60}]
    content = {"images": listed, "annotations": objects, "categories": [{"id": 1, "name": "person"}]}
    (annotations / "instances_val2017.json").write_text(json.dumps(content))
    return tmp_path


def asked(*flags: str) -> demo.Asked:
    return demo.read_arguments(["--ckpt", "x.pth", "--images", "photos", *flags])


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (
            ("--fit_max", "800", "1333"),
            ["preprocess.resize=shortest_edge", "preprocess.short=800", "preprocess.long=1333"],
        ),
        (
            ("--fix_max", "480", "640"),
            ["preprocess.resize=shortest_edge", "preprocess.short=480", "preprocess.long=640"],
        ),
        (
            ("--fit_window", "800", "1333"),
            ["preprocess.resize=fit_window", "preprocess.short=800", "preprocess.long=1333"],
        ),
        (
            ("--size", "480", "480", "--rgb"),
            [
                *("preprocess.resize=stretch", "preprocess.short=480", "preprocess.long=480"),
                "preprocess.channels=rgb",
            ],
        ),
        (MEAN, ["model.mean=[102.9801, 115.9465, 122.7717]"]),
        ((), []),
    ],
)
def test_flags_of_the_input_are_settings_of_the_model(flags: tuple[str, ...], settings: list[str]) -> None:
    assert asked(*flags, "pytorch", "--model", MODEL).model.settings() == settings


def test_two_ways_to_resize_are_refused() -> None:
    with pytest.raises(SystemExit):
        asked("--fit_max", "8", "13", "--size", "8", "8", "pytorch", "--model", MODEL)


def test_the_demo_of_its_page_is_a_prediction_that_is_shown() -> None:
    """The command for a camera, word by word."""
    page = (
        "--dataset coco_2017_val --ckpt mask_rcnn_resnet50_fpn_2x.pth "
        "--mean_pixel 102.9801 115.9465 122.7717 "
        f"--fit_window 800 1333 --video 0 --delay 1 --show_fps pytorch --model {MODEL} --show_flops"
    )
    found = demo.read_arguments(shlex.split(page))
    assert demo.commands(found, "m.safetensors") == [
        ["info", "m.safetensors"],
        [
            *("predict", "m.safetensors", "camera:0", "--score", "0.5", "--device", "auto"),
            *("--show", "auto", "--delay", "1", "--show-fps"),
        ],
    ]


def test_options_of_ours_follow_and_a_file_is_no_camera() -> None:
    words = ["--ckpt", "x.pth", "-v", "clip.mp4", "-pt", "0.7", "--show_boxes", "pytorch", "--model", MODEL]
    found = demo.read_arguments([*words, "--show_layers_flops", "--save", "json", "--show", "8080"])
    costs, predict = demo.commands(found, "m.safetensors")
    assert costs == ["info", "m.safetensors", "--flops"]
    assert predict[2:5] == ["clip.mp4", "--score", "0.7"]
    assert predict[-5:] == ["--boxes", "--save", "json", "--show", "8080"] and "auto" not in predict[7:]


def test_the_demo_runs_its_weights_on_images(
    theirs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--ckpt", str(theirs), *MEAN, "--fit_max", "64", "96", "-i", "data/coco/images/val2017"]
    demo.main([*words, "--delay", "1", "pytorch", "--model", MODEL, "--show_flops", "--save", "json"])
    told = capsys.readouterr()
    assert "$ maskrcnn convert" in told.err and "$ maskrcnn predict" in told.err
    assert "short side 64, long side at most 96" in told.out and "GFLOP" in told.out
    assert (here / "predictions/000000000007.json").exists()


def test_the_file_is_made_as_the_flags_say_and_the_weights_stay_as_they_are(
    theirs: Path, tmp_path: Path
) -> None:
    model = asked("--size", "64", "96", *MEAN, "pytorch", "--model", MODEL).model
    first = Path(prepared(type(model)(theirs, resize=("fit_max", 64, 96)), tmp_path))
    spec, tensors = read_model_file(first)
    assert (spec.preprocess.resize, spec.preprocess.short) == ("shortest_edge", 64)
    (tmp_path / "again").mkdir()
    again = prepared(type(model)(first, resize=model.resize, rgb=True), tmp_path / "again")
    changed, same = read_model_file(Path(again))
    assert (changed.preprocess.resize, changed.preprocess.channels) == ("stretch", "rgb")
    assert all(np.array_equal(same[name], each) for name, each in tensors.items())
    assert prepared(type(model)(first), tmp_path) == str(first)


def test_the_test_of_its_page_measures_on_its_layout_of_coco(
    theirs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hotcoco")
    words = ["--dataset", "coco_2017_val", "--ckpt", str(theirs), *MEAN, "--fit_max", "64", "96"]
    measuring.main([*words, "pytorch", "--model", MODEL, "--batch_size", "1", "--json"])
    told = capsys.readouterr()
    metrics = json.loads(told.out[told.out.index('{"') :])
    assert metrics["images"] == 1 and "$ maskrcnn eval" in told.err


def test_options_of_eval_name_another_data_set() -> None:
    words = ["--ckpt", "x.pth", "--dataset", "mine", "pytorch", "--model", MODEL]
    with pytest.raises(UserError, match="--dataset mine: is unknown"):
        measuring.read_arguments(words)
    found = measuring.read_arguments([*words, "--annotations", "a.json", "--images", "b"])
    assert measuring.commands(found, "m") == [
        [
            *("eval", "m", "--batch", "1", "--device", "auto"),
            *("--annotations", "a.json", "--images", "b"),
        ]
    ]


def test_openvino_graphs_of_its_contract_run_by_either_spelling(
    theirs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    from maskrcnn.export.contracts.segmentoly import export
    from maskrcnn.export.form import Form

    model = prepared(demo.Model(theirs, resize=("fit_max", 64, 96)), here)
    export(Path(model), here / "theirs.xml", Form(size=(64, 96)))
    words = ["--ckpt", "theirs.bin", "-i", "data/coco/images/val2017", "--fit_window", "64", "90"]
    assert demo.read_arguments([*words, "openvino", "--model", "theirs.xml"]).device == "cpu"
    demo.main([*words, "--delay", "1", "OpenVINO™", "--model", "theirs.xml", "-d", "CPU", "--save", "json"])
    told = capsys.readouterr()
    assert "000000000007.png" in told.out
    assert "note: images are fitted into 64 x 96, the input of theirs.xml" in told.err
    with pytest.raises(UserError, match=r"--ckpt other.bin: is not the .bin of theirs.xml"):
        demo.read_arguments(["--ckpt", "other.bin", "-i", "x", "openvino", "--model", "theirs.xml"])


def test_what_cannot_be_opened_is_an_error_of_two_lines(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        demo.main(["--ckpt", "none.pth", "-i", "data", "pytorch", "--model", MODEL])
    assert left.value.code == 2
    assert "error: none.pth" in capsys.readouterr().err


@pytest.mark.data
def test_its_test_measures_on_real_photographs_what_eval_measures(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five photographs of COCO, the example model: the flags that it was trained with, and others."""
    pytest.importorskip("torch")
    pytest.importorskip("hotcoco")
    content = json.loads((data_dir / "coco_val215/instances.json").read_text())
    content["images"] = content["images"][:5]
    kept = {each["id"] for each in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    (tmp_path / "five.json").write_text(json.dumps(content))
    truth = ("--annotations", str(tmp_path / "five.json"), "--images", str(data_dir / "coco_val215/images"))

    def measured(*flags: str) -> dict[str, float]:
        words = ["--ckpt", "example", *flags, "pytorch", "--model", MODEL, *truth, "--json", "--threads", "1"]
        measuring.main([*words, "--device", "cpu"])
        told = capsys.readouterr().out
        found = json.loads(told[told.index('{"') :])
        return {name: found[f"{name}/AP"] for name in ("bbox", "segm")}

    own = measured()
    assert own == measured("--fit_max", "320", "533")
    assert own["bbox"] > 0.1
    assert own != measured("--size", "160", "160")
