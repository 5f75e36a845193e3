"""The command line of PPL.NN's sample, on our engines."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from maskrcnn.compat import ppl
from maskrcnn.images import read_image

FOLDER = Path(__file__).parents[1] / "backends"
OWN = str(Path(__file__).parents[2] / "src" / "maskrcnn" / "example.onnx")


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What writes graphs as mmdetection does."""
    return runpy.run_path(str(FOLDER / "mmdetection_graph.py"))


@pytest.fixture
def white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture in which the tiny graph finds a cat; the working folder is its own."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("white.png", np.full((400, 600, 3), 255, np.uint8))
    return tmp_path / "white.png"


@pytest.fixture
def graph(tmp_path: Path, made: dict[str, Any]) -> Path:
    return made["write_tiny"](tmp_path / "mask_rcnn.onnx")


def run(*words: object) -> int:
    """The exit code."""
    try:
        ppl.main([str(word) for word in words])
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        return leaving.code
    return 0


def test_the_command_of_the_page_writes_the_picture(
    white: Path, graph: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("-i", white, "-o", "cat0.jpg", "-m", graph, "--engine", "onnxruntime") == 0
    out, err = capfd.readouterr()
    assert out == f"{white}   1 cat   -> cat0.jpg\n"
    assert err == "Run ok\n"
    picture = read_image(Path("cat0.jpg"))
    assert picture.shape == (400, 600, 3)
    assert picture.min() < 100  # the letters on the white image


def test_the_picture_has_their_name_where_it_has_none(
    white: Path, graph: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--in_img_file", white, "--onnx_model", graph, "--engine", "onnxruntime") == 0
    assert Path("test_out.jpg").exists()
    assert "so test_out.jpg is written" in capfd.readouterr().err


def test_it_runs_on_openppl_where_that_is_installed_and_says_so_where_not(
    white: Path, graph: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("-i", white, "-m", graph, "-o", "a.png") == 0
    assert "note: OpenPPL's pyppl is not installed, so ONNX Runtime runs the model" in capfd.readouterr().err
    monkeypatch.syspath_prepend(str(FOLDER / "fake_pyppl"))
    assert run("-i", white, "-m", graph, "-o", "b.png") == 0
    assert capfd.readouterr().err == "Run ok\n"
    from pyppl.common import CALLS  # type: ignore[import-not-found]

    assert ("LoadModelFromFile", "mask_rcnn.onnx") in CALLS
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyppl"]:
        del sys.modules[name]
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_nothing_found_is_a_picture_too(white: Path, graph: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite("black.png", np.zeros((40, 60, 3), np.uint8))
    for extra in ((), ("--exact",)):
        assert run("-i", "black.png", "-m", graph, "-o", "out.png", "--engine", "onnxruntime", *extra) == 0
        assert read_image(Path("out.png")).max() == 0


def test_a_graph_of_any_size_is_fed_with_800_x_1200_and_one_of_a_size_with_that(
    tmp_path: Path, graph: Path, made: dict[str, Any]
) -> None:
    rule = ppl.open_as_sample(graph, "onnxruntime").spec.preprocess
    assert (rule.resize, rule.short, rule.long, rule.channels) == ("stretch", 800, 1200, "rgb")
    fixed = made["write_tiny"](tmp_path / "fixed.onnx", (80, 120))
    rule = ppl.open_as_sample(fixed, "onnxruntime").spec.preprocess
    assert (rule.short, rule.long) == (80, 120)


def test_a_described_graph_is_fed_as_it_says_but_for_exact(tmp_path: Path, graph: Path) -> None:
    from maskrcnn.weights.graph_description import describe_graph

    out = tmp_path / "described.onnx"
    describe_graph(graph, out, style="caffe", settings=["preprocess.short=320"])
    rule = ppl.open_as_sample(out, "onnxruntime").spec.preprocess
    assert (rule.resize, rule.short, rule.channels) == ("shortest_edge", 320, "bgr")
    exact = ppl.open_as_sample(out, "onnxruntime", exact=True).spec
    assert (exact.preprocess.resize, exact.model.std) == ("stretch", (58.395, 57.12, 57.375))


def test_exact_subtracts_the_mean_of_red_from_blue(graph: Path) -> None:
    model = ppl.open_as_sample(graph, "onnxruntime", exact=True)
    red = np.zeros((400, 600, 3), np.uint8)
    red[..., 0] = 255
    fed: list[np.ndarray] = []
    session = model.backend.session  # type: ignore[attr-defined]

    def watched(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        fed.append(arrays["input"])
        return session(arrays)

    model.backend.session = watched  # type: ignore[attr-defined]
    ppl.drawn_exactly(model, red)
    assert fed[0].shape == (1, 3, 800, 1200)
    # Nought where blue is, on the mean of red; full where red is, on the mean of blue.
    expected = [-123.675 / 58.395, -116.28 / 57.12, (255 - 103.53) / 57.375]
    np.testing.assert_allclose(fed[0][0, :, 0, 0], expected, rtol=1e-5)


def test_exact_draws_their_rectangle_and_half_their_colour(white: Path, graph: Path) -> None:
    """The box 1 2 9 6 of 800 x 1200 pixels is 0 1 4 3 of 400 x 600, cut to whole pixels."""
    assert run("-i", white, "-m", graph, "-o", "out.png", "--engine", "onnxruntime", "--exact") == 0
    picture = cv2.imread("out.png")
    numbers = np.random.RandomState(42)
    colour = [numbers.randint(0, 256, (1, 3), np.uint8) for _ in range(16)][15][0]
    # The mask of the tiny graph is the whole image, and lies on the rectangle as well.
    np.testing.assert_array_equal(picture[300, 500], (0.5 * colour + 127.5).astype(np.uint8))
    np.testing.assert_array_equal(picture[3, 2], (0.5 * colour).astype(np.uint8))


def test_what_the_graph_is_fed_with_is_written_as_the_samples_input_bin(white: Path, graph: Path) -> None:
    words = ["-i", white, "-m", graph, "-o", "out.png", "--engine", "onnxruntime", "--input-bin", "input.bin"]
    assert run(*words, "--exact") == 0
    assert Path("input.bin").stat().st_size == 11_520_000  # 1 x 3 x 800 x 1200 float32
    fed = np.fromfile("input.bin", "<f4").reshape(1, 3, 800, 1200)
    np.testing.assert_allclose(fed[0, :, 0, 0], [2.2489, 2.4286, 2.64], rtol=1e-4)
    assert run("-i", white, "-m", OWN, "-o", "own.png", "--input-bin", "own.bin") == 2
    assert not Path("own.bin").exists()


def test_missing_arguments_end_with_1(white: Path, graph: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("-i", white), ("-m", graph)):
        assert run(*words) == 1
    assert "-i/--in_img_file" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("-i", "missing.png", "-m", "mask_rcnn.onnx"), "missing.png"),
        (("-i", "white.png", "-m", "missing.onnx"), "missing.onnx: no such model file"),
        (("-i", "white.png", "-m", "mask_rcnn.onnx", "-o", "out.docx"), "no kind of picture ends in .docx"),
        (("-i", "white.png", "-m", "mask_rcnn.onnx", "--engine", "pplnn"), "PPL.NN cannot be imported"),
        (("-i", "white.png", "-m", OWN, "--exact"), "is no graph of mmdetection"),
    ],
)
def test_mistakes_end_with_2_and_words(
    white: Path, graph: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], error: str
) -> None:
    assert run(*words) == 2
    err = capfd.readouterr().err
    assert error in err and "hint: " in err and "Traceback" not in err
    assert not list(white.parent.glob("*out*"))


def test_the_module_is_a_program(white: Path, graph: Path) -> None:
    words = ["-i", str(white), "-m", str(graph), "--engine", "onnxruntime", "-o", "cat0.jpg"]
    done = subprocess.run(
        [sys.executable, "-m", "maskrcnn.compat.ppl", *words], check=False, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"Run ok\n")
