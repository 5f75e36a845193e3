"""`maskrcnn info` tells what a model file holds, without PyTorch."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from commands import Run


def test_json_on_stdout_holds_source_classes_input_cost_and_conventions(run: Run, model_file: Path) -> None:
    ran = run("info", model_file, "--json")
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(ran.out)
    assert told["sha256"] == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert told["origin"]["source"] == "detectron2"
    assert told["classes"] == {"names": ["cat", "dog", "cow"], "ids": [17, 18, 21]}
    assert told["preprocess"]["short"] == 96
    assert told["input_size"] == [96, 160]  # 2:3 of a short side of 96 is 144, padded to a multiple of 32
    assert told["model"]["conventions"]["anchor_cell"] == "exact"
    assert [stage["name"] for stage in told["stages"]] == ["backbone", "fpn", "rpn", "box_head", "mask_head"]
    assert told["parameters"] == sum(stage["parameters"] for stage in told["stages"])


def test_the_text_names_what_matters(run: Run, model_file: Path) -> None:
    out = run("info", model_file).out
    for words in (
        "detectron2, model.pkl, sha256 abab",
        "ResNet-18, FPN of 32 channels",
        "3: cat, dog, cow",
        "short side 96, long side at most 160",
        "RGB, padded to 32",
        "of 96 x 160 pixels, 50 proposals, 100 detections",
        "precision   fp32",
        "anchor_order        size_first",
    ):
        assert words in out


def test_torch_is_not_needed(model_file: Path) -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\n"
        f"sys.argv = ['maskrcnn', 'info', {str(model_file)!r}]\n"
        "from maskrcnn.cli.main import main\nmain()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "GFLOP" in ran.stdout


def test_a_safetensors_file_of_another_tool_is_sent_to_convert(run: Run, tmp_path: Path) -> None:
    header = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "other.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    ran = run("info", path)
    assert ran.code == 2
    assert "without a maskrcnn description" in ran.err
    assert f"maskrcnn convert {path}" in ran.err
