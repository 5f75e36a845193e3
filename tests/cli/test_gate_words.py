"""What a check says on the command line, and the files that `maskrcnn compare` reads after it."""

import json
from pathlib import Path

import pytest
import typer
from commands import Run

from maskrcnn.cli.gate import asked_for, passed_in_words, write_checked
from maskrcnn.errors import UserError
from maskrcnn.export import gate
from maskrcnn.export.gate import Asked, Gated
from maskrcnn.spec import Check

Fixed = pytest.MonkeyPatch
ON = "6 drawn images"


def gated(**values: object) -> Gated:
    check = Check(images=6, matched=59, box_px=0.00312, score=1.6e-6, mask_pixels=0.9999812, on=ON)
    return Gated(**{"path": Path("m.onnx"), "check": check, **values})  # type: ignore[arg-type]


def test_a_check_that_passed_is_one_line() -> None:
    assert passed_in_words(gated()) == (
        "checked on 6 drawn images: all 59 detections, boxes within 0.0031 px, scores within 1.6e-06, masks "
        "agree on 99.998 % of pixels"
    )
    precision = (("bbox/AP", 0.7134, 0.713), ("segm/AP", 0.5, 0.49))
    stages = (("p2", 0.02), ("res2", 0.01))
    found = gated(check=Check(images=2, matched=3, missed=1, precision=precision, on=ON, stages=stages))
    assert passed_in_words(found) == (
        "checked on 6 drawn images: 3 of 4 detections, boxes within 0 px, scores within 0, masks agree on "
        "100 % of pixels, bbox AP 71.3 -> 71.3, segm AP 50.0 -> 49.0, stages within 0.02 (`p2`)"
    )
    nothing = gated(check=Check(images=6, on=ON))
    assert passed_in_words(nothing) == "checked on 6 drawn images: nothing was found"


def returned(found: Gated, monkeypatch: Fixed) -> None:
    monkeypatch.setattr(gate, "write_checked", lambda *_: found)


def test_a_rejected_file_is_an_error_with_the_command_that_shows_it(
    monkeypatch: Fixed, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = "differs from example at stage `res4`, 0.1 of 2 (street 1.jpg)"
    returned(gated(path=Path("m.onnx.rejected"), fault=fault, shows="street 1.jpg"), monkeypatch)
    with pytest.raises(typer.Exit) as ended:
        write_checked("example", Path("m.onnx"), lambda path: None, Asked())
    printed = capsys.readouterr()
    assert (ended.value.exit_code, printed.out) == (1, "")
    assert printed.err.splitlines() == [
        f"error: m.onnx {fault}; kept as m.onnx.rejected",
        "hint: `maskrcnn compare example m.onnx.rejected 'street 1.jpg' --stages` shows it",
    ]


def test_the_report_is_printed_as_json(monkeypatch: Fixed, capsys: pytest.CaptureFixture[str]) -> None:
    returned(gated(check=Check(6, 59, on=ON, stages=(("p2", 0.5),))), monkeypatch)
    write_checked("example", Path("m.onnx"), lambda path: None, Asked(), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["passed"], told["file"], told["on"], told["stages"], told["check"]["matched"]) == (
        True,
        "m.onnx",
        ON,
        {"p2": 0.5},
        59,
    )


def test_images_in_which_nothing_is_found_are_said_to_say_little(
    monkeypatch: Fixed, capsys: pytest.CaptureFixture[str]
) -> None:
    returned(gated(check=Check(images=6, on=ON)), monkeypatch)
    write_checked("example", Path("m.onnx"), lambda path: None, Asked())
    assert "note: nothing was found in the images of the check; --check IMAGES" in capsys.readouterr().err


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--tolerance inf: is no limit"):
        asked_for(None, None, float("inf"))
    with pytest.raises(UserError, match="missing: no such file or folder"):
        asked_for([str(tmp_path / "missing")], None)


def test_compare_reads_a_rejected_file_and_names_its_stage(
    run: Run, tmp_path: Path, photographs: Path, monkeypatch: Fixed
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "export"))
    from hand_made import write_graph

    model = write_graph(tmp_path / "m.onnx")
    rejected = write_graph(tmp_path / "n.onnx", gain=0.75).rename(tmp_path / "n.onnx.rejected")
    ran = run("compare", model, rejected, photographs / "1.jpg", "--stages", "--threads", 1)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.splitlines()[-1].startswith("same up to input; stem differs: ")


def test_a_converted_checkpoint_is_run_and_goes_back_to_the_bit(
    run: Run, tmp_path: Path, photographs: Path
) -> None:
    pytest.importorskip("torch")
    from small_checkpoint import small_checkpoint

    checkpoint, out = small_checkpoint(tmp_path / "tiny.pkl"), tmp_path / "tiny.safetensors"
    settings = [
        f"--set={each}" for each in ("model.rpn.post_nms=20", "preprocess.short=64", "preprocess.long=96")
    ]
    ran = run("convert", checkpoint, out, "--check", photographs, *settings)
    assert (ran.code, ran.err) == (0, "")
    last = ran.out.splitlines()[-1]
    assert last.startswith("ran on 3 images and 3 drawn ones: ")
    assert last.endswith("the same to the bit after the way to detectron2 and back")
    assert out.exists()


def test_a_converted_checkpoint_that_gives_no_numbers_is_rejected(
    run: Run, tmp_path: Path, photographs: Path, monkeypatch: Fixed
) -> None:
    torch = pytest.importorskip("torch")
    from small_checkpoint import small_checkpoint

    from maskrcnn.backends.pytorch import PyTorchBackend

    checkpoint, out = small_checkpoint(tmp_path / "tiny.pkl"), tmp_path / "tiny.safetensors"
    real = PyTorchBackend.run

    def broken(self: PyTorchBackend, image: object, size: object) -> object:
        raw = real(self, image, size)  # type: ignore[arg-type]
        return raw._replace(boxes=raw.boxes * float(torch.nan))

    monkeypatch.setattr(PyTorchBackend, "run", broken)
    settings = ("--set=model.rpn.post_nms=20", "--set=preprocess.short=64", "--set=preprocess.long=96")
    ran = run("convert", checkpoint, out, "--check", photographs / "1.jpg", *settings)
    assert ran.code == 1
    assert "tiny.safetensors: `boxes` is not finite (1.jpg); kept as " in ran.err
    assert not out.exists()
    assert out.with_name("tiny.safetensors.rejected").exists()


def test_a_check_does_not_go_with_the_way_back(run: Run, tmp_path: Path) -> None:
    ran = run("convert", "example", tmp_path / "m.pth", "--to", "torchvision", "--check", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "--check does not go with --to torchvision" in ran.err
