"""Every verb with a wrong file, a truncated one, a missing engine or device, and a size out of range."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from commands import Run
from finds import files_in

from maskrcnn.cli.main import app

GROUPS = ("data", "bins")
# By verb: a command line with the names of `files`, and what its error names.
WRONG = [
    ("predict wrong.safetensors 1.png", "wrong.safetensors"),
    ("predict wrong.onnx 1.png", "wrong.onnx"),
    ("predict wrong.xml 1.png", "wrong.xml"),
    ("predict wrong.parts 1.png", "wrong.parts"),
    ("predict 1.png 1.png", "1.png"),
    ("predict model.safetensors wrong.png", "wrong.png"),
    ("predict model.safetensors wrong.mp4", "wrong.mp4"),
    ("info wrong.safetensors", "wrong.safetensors"),
    ("info 1.png", "1.png"),
    ("convert wrong.pth out.safetensors", "wrong.pth"),
    ("convert wrong.pkl out.safetensors", "wrong.pkl"),
    ("convert wrong.wts out.safetensors", "wrong.wts"),
    ("convert wrong.safetensors out.wts --to wts", "wrong.safetensors"),
    ("convert model.safetensors out.pth --to wts", "out.pth"),
    ("compare model.safetensors wrong.safetensors 1.png", "wrong.safetensors"),
    ("compare model.safetensors model.safetensors wrong.png", "wrong.png"),
    ("train --data wrong.json --out run", "wrong.json"),
    ("train --data good.json --images . --model wrong.safetensors --out run", "wrong.safetensors"),
    ("train wrong.yaml", "wrong.yaml"),
    ("eval wrong.safetensors --annotations good.json --images .", "wrong.safetensors"),
    ("eval model.safetensors --annotations wrong.json --images .", "wrong.json"),
    ("eval --detections wrong.json --annotations good.json", "wrong.json"),
    ("export wrong.safetensors out.onnx", "wrong.safetensors"),
    ("export model.safetensors out.png", "out.png"),
    ("quantize wrong.safetensors out.onnx --calibrate 1.png", "wrong.safetensors"),
    ("quantize model.safetensors out.onnx --calibrate wrong.png", "wrong.png"),
    ("bench wrong.onnx", "wrong.onnx"),
    ("bench graph.onnx wrong.png", "wrong.png"),
    ("data check wrong.json", "wrong.json"),
    ("data stats wrong.json", "wrong.json"),
    ("data stats good.json --images . --model wrong.safetensors", "wrong.safetensors"),
    ("data convert wrong.json out.json", "wrong.json"),
    ("data split wrong.json parts", "wrong.json"),
    ("data view wrong.json", "wrong.json"),
    ("zoo wrong.json", "wrong.json"),
    ("bins write 1.png out --model wrong.onnx", "wrong.onnx"),
    ("bins run wrong.onnx wrong.bin out", "wrong.onnx"),
    ("bins eval wrong.json --annotations good.json", "wrong.json"),
]
TRUNCATED = [
    ("predict cut.safetensors 1.png", "cut.safetensors"),
    ("predict cut.onnx 1.png", "cut.onnx"),
    ("predict model.safetensors cut.png", "cut.png"),
    ("info cut.onnx", "cut.onnx"),
    ("convert cut.pkl out.safetensors", "cut.pkl"),
    ("convert cut.wts out.safetensors", "cut.wts"),
    ("convert cut.safetensors out.wts --to wts", "cut.safetensors"),
    ("compare cut.safetensors model.safetensors 1.png", "cut.safetensors"),
    ("train --data cut.json --out run", "cut.json"),
    ("train --data good.json --images . --model cut.safetensors --out run", "cut.safetensors"),
    ("eval cut.safetensors --annotations good.json --images .", "cut.safetensors"),
    ("eval model.safetensors --annotations cut.json --images .", "cut.json"),
    ("eval --detections cut.json --annotations good.json", "cut.json"),
    ("export cut.safetensors out.onnx", "cut.safetensors"),
    ("quantize cut.safetensors out.onnx --calibrate 1.png", "cut.safetensors"),
    ("quantize cut.onnx out.onnx --calibrate 1.png", "cut.onnx"),
    ("quantize model.safetensors out.onnx --calibrate cut.png", "cut.png"),
    ("bench cut.onnx", "cut.onnx"),
    ("bench graph.onnx cut.png", "cut.png"),
    ("data check cut.json", "cut.json"),
    ("data stats cut.json", "cut.json"),
    ("data convert cut.json out.json", "cut.json"),
    ("data split cut.json parts", "cut.json"),
    ("data view cut.json", "cut.json"),
    ("bins write 1.png out --model cut.onnx", "cut.onnx"),
    ("bins run cut.onnx 1.png out", "cut.onnx"),
]
MISSING = [
    ("predict model.engine 1.png", "tensorrt"),
    ("predict graph.onnx 1.png --device coreml", "coreml"),
    ("predict graph.onnx 1.png --engine openvino --device npu", "npu"),
    ("predict model.safetensors 1.png --device cuda:7", "cuda:7"),
    ("predict model.safetensors 1.png --engine tensorrt", "tensorrt"),
    ("predict model.safetensors 1.png --engine warp", "warp"),
    ("compare model.safetensors model.safetensors 1.png --device cuda:7", "cuda:7"),
    ("compare model.safetensors graph.onnx 1.png --engines pytorch,tensorrt", "tensorrt"),
    ("train --data good.json --images . --model model.safetensors --out run --device cuda:7", "cuda:7"),
    ("eval model.safetensors --annotations good.json --images . --device cuda:7", "cuda:7"),
    ("eval graph.onnx --annotations good.json --images . --device coreml", "coreml"),
    ("export model.safetensors out.engine", "tensorrt"),
    ("bench graph.onnx --device coreml", "coreml"),
    ("bench graph.onnx --engine tensorrt", "tensorrt"),
    ("bins run graph.onnx wrong.bin out --device coreml", "coreml"),
]
OUT_OF_RANGE = [
    ("predict model.safetensors 1.png --tiles 0", "0 pixels"),
    ("predict model.safetensors 1.png --batch 0", "--batch"),
    ("convert good.wts out.safetensors --set preprocess.short=big", "preprocess.short"),
    ("compare model.safetensors model.safetensors 1.png --tolerance -1", "--tolerance"),
    ("train --data good.json --images . --model model.safetensors --out run --batch 0", "--batch"),
    ("eval graph.onnx --annotations good.json --images . --scales 640", "640"),
    ("eval model.safetensors --annotations good.json --images . --scales 0", "0"),
    ("export model.safetensors out.onnx --size 801x1216", "801x1216"),
    ("export model.safetensors out.onnx --size 0x0", "0x0"),
    ("export model.safetensors out.onnx --size big", "big"),
    ("quantize model.safetensors out.onnx --calibrate 1.png --images-limit 0", "--images-limit"),
    ("bench model.safetensors --batch 0", "--batch 0"),
    ("data split good.json parts --val 2", "--val"),
    ("data view good.json --limit 0", "--limit"),
    ("bins write 1.png out --size 0x0", "0x0"),
    ("bins run graph.onnx wrong.bin out --loop 0", "--loop"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Path:
    """A folder of good, wrong and cut files."""
    tests = Path(__file__).parents[1]
    folder = tmp_path_factory.mktemp("files")
    pytest.importorskip("onnx")
    tiny = runpy.run_path(str(tests / "backends" / "tiny_graph.py"))
    tiny["write_onnx"](folder / "graph.onnx", tiny["spec"](batch=1, height=32, width=64))
    (folder / "model.safetensors").write_bytes(model_file.read_bytes())
    _checkpoints(tests, folder)
    cv2.imwrite(str(folder / "1.png"), np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    box = {"id": 1, "image_id": 1, "category_id": 17, "bbox": [5, 5, 40, 30], "area": 1200, "iscrowd": 0}
    contents: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "1.png", "height": 60, "width": 90}],
        "categories": [{"id": 17, "name": "cat"}],
        "annotations": [{**box, "segmentation": [[5, 5, 45, 5, 45, 35, 5, 35]]}],
    }
    (folder / "good.json").write_text(json.dumps(contents))
    for name in ("safetensors", "onnx", "xml", "png", "mp4", "pth", "pkl", "wts", "json", "yaml", "bin"):
        (folder / f"wrong.{name}").write_text("dear diary, [ today it rained\n")
    (folder / "wrong.parts").mkdir()
    (folder / "model.engine").write_text("dear diary, [ today it rained\n")
    cut = {"model.safetensors": "safetensors", "graph.onnx": "onnx", "1.png": "png", "good.json": "json"}
    for name, suffix in {**cut, "good.pkl": "pkl", "good.wts": "wts"}.items():
        whole = (folder / name).read_bytes()
        (folder / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    return folder


def _checkpoints(tests: Path, folder: Path) -> None:
    from maskrcnn.weights.wts import write_wts

    frameworks = runpy.run_path(str(tests / "weights" / "frameworks.py"))
    frameworks["detectron2_file"](folder / "good.pkl")
    plan = frameworks["Plan"](**{**frameworks["SMALL"], "neck": "c4", "norm": ""})
    write_wts(folder / "good.wts", frameworks["filled"](frameworks["detectron2_shapes"](plan)))


@pytest.mark.parametrize(("line", "named"), [*WRONG, *TRUNCATED, *MISSING, *OUT_OF_RANGE])
def test_what_cannot_work_is_told_in_one_line_with_what_to_do(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch, line: str, named: str
) -> None:
    monkeypatch.chdir(files)
    # A test with a stand-in for TensorRT may have left it.
    monkeypatch.delitem(sys.modules, "maskrcnn.backends.tensorrt_runtime", raising=False)
    before = [name for name in files_in(files) if name != "run/run.yaml"]
    ran = run(*line.split())
    told = [row for row in ran.err.splitlines() if row.startswith(("error:", "hint:"))]
    assert (ran.code, ran.out) == (2, ""), ran
    assert [row.split(":")[0] for row in told] == ["error", "hint"], ran.err
    assert named in told[0]
    assert "Traceback" not in ran.err
    # The settings of a run are kept before its model is looked at.
    assert [name for name in files_in(files) if name != "run/run.yaml"] == before


def test_no_verb_is_left_out() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {
        f"{name} {part}".strip()
        for name, verb in verbs.items()
        for part in getattr(verb, "commands", None) or [""]
    }
    tried = {" ".join(line.split()[: 1 + (line.split()[0] in GROUPS)]) for line, _ in WRONG}
    assert tried == known
