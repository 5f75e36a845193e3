"""A file gets its name only if it does what its model does, and an interruption leaves nothing."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hand_made import BOXES, description, write_graph

from maskrcnn.errors import UserError
from maskrcnn.export import gate
from maskrcnn.export.gate import Asked, Gated, write_checked
from maskrcnn.export.scenes import drawn_scenes
from maskrcnn.export.settle import own_folder, settle, store_check
from maskrcnn.images import find_images
from maskrcnn.predict import open_model
from maskrcnn.spec import Check, Exported
from maskrcnn.stored_spec import engine_header, stored_spec

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
ONE = Asked(threads=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "model.onnx")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "copy.onnx"


def files(out: Path) -> list[str]:
    return sorted(os.listdir(out.parent))


def test_what_is_the_same_gets_its_name_and_the_report_inside(model: Path, out: Path) -> None:
    gated = write_checked(model, out, write_graph, ONE)
    assert (gated.passed, gated.path, gated.check.on) == (True, out, "6 drawn images")
    assert files(out) == ["copy.onnx"]
    exported = stored_spec(out).exported
    assert exported is not None
    # Four objects in the landscape, the portrait, the small and the crowded image, in the landscape once
    # more, and in a batch of two.
    stages = (("input", 0.0), ("stem", 0.0), ("masks", 0.0))
    assert exported.check == gated.check == Check(images=6, matched=28, on="6 drawn images", stages=stages)
    assert replace(stored_spec(out), exported=Exported()) == description()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gain": 1.5}, "at stage `stem`, "),
        ({"moved": 3.0}, "at stage `proposals`, "),
        ({"moved": float("nan")}, "not all finite (drawn landscape)"),
    ],
)
def test_what_differs_is_kept_as_rejected_and_its_first_stage_is_named(
    model: Path, out: Path, change: dict[str, float], words: str
) -> None:
    gated = write_checked(model, out, lambda path: write_graph(path, **change), ONE)
    assert (gated.passed, gated.path) == (False, out.with_name("copy.onnx.rejected"))
    assert gated.fault.startswith(f"differs from {model} ")
    assert words in gated.fault
    assert files(out) == ["copy.onnx.rejected", "copy.onnx.rejected.png"]
    shown = cv2.imread(gated.shows)[..., ::-1]
    assert (shown == drawn_scenes()[0].load()).all()


def test_an_older_file_stays_when_its_successor_is_rejected(model: Path, out: Path) -> None:
    out.write_text("old")
    write_checked(model, out, lambda path: write_graph(path, moved=3), ONE)
    assert out.read_text() == "old"
    assert write_checked(model, out, write_graph, ONE).passed
    assert stored_spec(out).exported is not None


def test_a_file_that_its_engine_cannot_read_is_rejected_with_what_it_said(model: Path, out: Path) -> None:
    def truncated(path: Path) -> None:
        path.write_bytes(model.read_bytes()[:400])

    gated = write_checked(model, out, truncated, ONE)
    assert "in that its engine fails: " in gated.fault
    assert (gated.shows, files(out)) == ("", ["copy.onnx.rejected"])


def failing(error: BaseException) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise error

    return write


def test_a_full_disk_is_told_and_leaves_nothing(model: Path, out: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError, match=r"copy\.onnx: cannot be written \(No space left on device\)"):
        write_checked(model, out, failing(full), ONE)
    assert files(out) == []


def test_an_interruption_leaves_nothing(model: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_checked(model, out, failing(KeyboardInterrupt()), ONE)
    assert files(out) == []

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_checked(model, out, write_graph, ONE)
    assert files(out) == []


def test_what_is_missing_is_told_before_anything_is_written(
    model: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(path: Path) -> None:
        raise AssertionError

    (tmp_path / "photo.jpg").write_text("no photograph")
    with pytest.raises(UserError, match=r"photo\.jpg"):
        write_checked(model, out, never, Asked(tuple(find_images([tmp_path / "photo.jpg"]))))
    with pytest.raises(UserError, match=r"annotations\.json: no such file"):
        write_checked(model, out, never, Asked(verify=tmp_path / "annotations.json"))

    def absent(name: str) -> None:
        raise ModuleNotFoundError(name="onnxruntime")

    monkeypatch.setattr(gate, "import_module", absent)
    with pytest.raises(UserError, match="is checked with onnxruntime, which is not installed") as caught:
        write_checked(model, out, never, ONE)
    assert "maskrcnn[onnx]" in caught.value.hint
    assert files(out) == []


def test_photographs_take_the_place_of_the_drawn_scenes_and_the_hard_cases_stay(
    model: Path, out: Path, tmp_path: Path
) -> None:
    photograph = tmp_path / "street.png"
    cv2.imwrite(str(photograph), drawn_scenes()[1].load())
    asked = Asked(tuple(find_images([photograph])), threads=1)
    gated = write_checked(model, out, lambda path: write_graph(path, moved=3), asked)
    assert (gated.check.on, gated.check.images) == ("1 image and 3 drawn ones", 4)
    assert gated.fault.endswith("(street.png)")
    assert gated.shows == str(photograph)
    assert files(out) == ["copy.onnx.rejected"]


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """Five pictures of 60 x 60 pixels, in which the objects are where the hand-made model finds them."""
    folder = tmp_path / "data" / "images"
    folder.mkdir(parents=True)
    values = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
    }
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    for image in range(1, 6):
        cv2.imwrite(str(folder / f"{image}.png"), pixels)
        values["images"].append({"id": image, "file_name": f"{image}.png", "height": 32, "width": 32})
        for number, (x1, y1, x2, y2) in enumerate(BOXES[:2].tolist()):
            bbox = [x1, y1, x2 - x1, y2 - y1]
            polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
            entry = {"bbox": bbox, "segmentation": [polygon], "area": bbox[2] * bbox[3], "iscrowd": 0}
            ids = {"id": 10 * image + number, "image_id": image, "category_id": 17 + number}
            values["annotations"].append(entry | ids)
    path = tmp_path / "data" / "instances.json"
    path.write_text(json.dumps(values))
    return path


def test_average_precision_is_measured_before_and_after(model: Path, out: Path, annotated: Path) -> None:
    pytest.importorskip("hotcoco")
    told: list[str] = []
    asked = Asked(verify=annotated, threads=1)
    gated = write_checked(model, out, write_graph, asked, lambda what, done, total: told.append(what))
    assert gated.check.on == "5 images and 3 drawn ones"
    precision = {name: (before, after) for name, before, after in gated.check.precision}
    assert precision["bbox/AP"] == pytest.approx((1.0, 1.0))
    assert precision["segm/AP"][0] == precision["segm/AP"][1] > 0.1
    assert list(dict.fromkeys(told)) == ["comparing", "measuring before", "measuring after"]


def in_int8(path: Path, moved: float) -> None:
    write_graph(path, moved=moved, spec=description("int8"))


def test_few_bits_are_judged_by_average_precision_where_it_is_measured(
    model: Path, out: Path, annotated: Path
) -> None:
    pytest.importorskip("hotcoco")
    # A pixel to the right: IoU 0.82 of 10 x 10 pixels, 0.88 of 16 x 16, so that the strictest limits fail.
    gated = write_checked(model, out, lambda path: in_int8(path, 1.0), Asked(verify=annotated, threads=1))
    assert (gated.check.matched, gated.check.missed, gated.passed) == (27, 0, False)
    assert "a loss of more than 0.5 points" in gated.fault
    lenient = Asked(verify=annotated, max_drop=60, threads=1)
    assert write_checked(model, out, lambda path: in_int8(path, 1.0), lenient).passed


def test_an_openvino_network_is_two_files_and_keeps_the_report(model: Path, out: Path) -> None:
    openvino = pytest.importorskip("openvino")

    def convert(path: Path, **change: float) -> None:
        network = openvino.convert_model(str(write_graph(model.with_name("other.onnx"), **change)))
        network.set_rt_info(description().to_json(), "maskrcnn")
        openvino.save_model(network, path, compress_to_fp16=False)

    out = out.with_suffix(".xml")
    gated = write_checked(model, out, convert, ONE)
    assert (gated.fault, files(out)) == ("", ["copy.bin", "copy.xml"])
    exported = stored_spec(out).exported
    assert exported is not None
    assert exported.check == gated.check
    assert dict(gated.check.stages)["stem"] == 0
    assert open_model(out, "cpu", threads=1).spec.exported == exported
    gated = write_checked(model, out, lambda path: convert(path, gain=1.5), ONE)
    assert "at stage `stem`" in gated.fault
    assert files(out) == [
        "copy.bin",
        "copy.bin.rejected",
        "copy.xml",
        "copy.xml.rejected",
        "copy.xml.rejected.png",
    ]


def test_a_folder_of_parts_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    out = tmp_path / "model.parts"
    for content in ("old", "new"):
        with own_folder(out) as folder:
            (folder / "model.parts").mkdir()
            (folder / "model.parts" / "maskrcnn.json").write_text(content)
            assert settle(folder, out, rejected=False) == out
    assert (os.listdir(tmp_path), (out / "maskrcnn.json").read_text()) == (["model.parts"], "new")


def test_the_report_goes_into_a_folder_of_parts_and_before_a_plan(tmp_path: Path) -> None:
    parts = tmp_path / "model.parts"
    parts.mkdir()
    spec = replace(description(), exported=Exported(form="parts"))
    (parts / "maskrcnn.json").write_text(spec.to_json())
    write_graph(parts / "dense.onnx", spec=spec)
    engine = tmp_path / "model.engine"
    engine.write_bytes(engine_header(description()) + b"the plan")
    check = Check(images=3, matched=2, precision=(("segm/AP", 0.5, 0.25),))
    for path in (parts, engine):
        store_check(path, check)
        exported = stored_spec(path).exported
        assert exported is not None
        assert exported.check == check
    assert stored_spec(parts / "dense.onnx").exported == stored_spec(parts).exported
    assert engine.read_bytes().endswith(b"the plan")
    assert sorted(os.listdir(tmp_path)) == ["model.engine", "model.parts"]


def test_a_figure_of_a_report_is_a_plain_number(model: Path, out: Path) -> None:
    gated: Gated = write_checked(model, out, write_graph, ONE)
    assert json.loads(json.dumps(asdict(gated.check), allow_nan=False))["mask_pixels"] == 1
