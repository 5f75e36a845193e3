"""`maskrcnn info` of exported graphs: how they are fed, and what their check found."""

import hashlib
import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Run

from maskrcnn.spec import Check, Exported

pytest.importorskip("onnx")
TINY = runpy.run_path(str(Path(__file__).parents[1] / "backends" / "tiny_graph.py"))
CHECK = Check(6, 41, 1, 0.0031, 2e-6, 0.99998, (("segm/AP", 0.3712, 0.3708),))


@pytest.mark.parametrize(
    ("exported", "words"),
    [
        (
            Exported(),
            "one graph, any number of images at once, multiple of 32 x multiple of 32 pixels, float32",
        ),
        (Exported("whole", 1, 320, 512, "uint8"), "one graph, 1 image at once, 320 x 512 pixels, uint8"),
        (
            Exported("parts", 2, 0, 64),
            "three graphs, the rest on the host, 2 images at once, multiple of 32 x 64",
        ),
    ],
)
def test_it_says_how_the_graph_is_fed(run: Run, tmp_path: Path, exported: Exported, words: str) -> None:
    path = TINY["write_onnx"](tmp_path / "tiny.onnx", replace(TINY["spec"](), exported=exported))
    ran = run("info", path)
    assert ran.code == 0, ran.err
    assert f"exported    {words}" in ran.out
    assert "not checked against its model" in ran.out


def test_it_says_what_the_check_found(run: Run, tmp_path: Path) -> None:
    path = TINY["write_onnx"](tmp_path / "tiny.onnx", TINY["spec"](check=CHECK))
    printed = run("info", path).out
    words = "checked: 41 of 42 detections in 6 images, boxes within 0.0031 px, scores within 2e-06"
    assert f"{words}, masks agree on 99.998 %" in printed
    assert "segm/AP 37.1 -> 37.1" in printed
    assert json.loads(run("info", path, "--json").out)["exported"]["check"]["matched"] == 41


def test_size_and_sum_are_of_both_files_of_openvino(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = TINY["write_xml"](tmp_path / "tiny.xml", TINY["spec"]())
    both = path.with_suffix(".bin").read_bytes() + path.read_bytes()
    found = json.loads(run("info", path, "--json").out)
    assert (found["bytes"], found["sha256"]) == (len(both), hashlib.sha256(both).hexdigest())
    assert found["parameters"] > 0


def test_it_says_on_which_images_the_check_was_made_and_how_far_stages_were_apart(
    run: Run, tmp_path: Path
) -> None:
    check = replace(CHECK, on="3 images and 3 drawn ones", stages=(("res2", 0.0), ("p2", 1.23e-5)))
    path = TINY["write_onnx"](tmp_path / "tiny.onnx", TINY["spec"](check=check))
    printed = run("info", path).out
    assert "checked: 41 of 42 detections in 3 images and 3 drawn ones, boxes" in printed
    assert "stages, as shares of their largest values: res2 0, p2 1.2e-05" in printed
