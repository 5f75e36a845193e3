"""The command line starts fast, and fails in words."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Run

import maskrcnn
from maskrcnn.cli.main import in_words
from maskrcnn.errors import UserError

PYTHON = (sys.executable, "-c", "from maskrcnn.cli.main import main; main()")


def test_the_version_is_that_of_the_package(run: Run) -> None:
    ran = run("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"maskrcnn {maskrcnn.__version__}\n", "")


def test_help_names_the_verbs_and_imports_nothing_large() -> None:
    code = (
        "import sys\nfrom maskrcnn.cli.main import main\nsys.argv = ['maskrcnn', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'cv2', 'PIL', 'pydantic') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "predict" in ran.stdout
    assert "info" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "[]"


def test_without_arguments_help_is_shown(run: Run) -> None:
    ran = run()
    assert "Usage: maskrcnn" in ran.out + ran.err


def test_an_unknown_option_exits_with_2(run: Run) -> None:
    ran = run("predict", "--frobnicate")
    assert ran.code == 2
    assert "frobnicate" in ran.err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            UserError("a.jpg: is empty", hint="copy it again"),
            2,
            "error: a.jpg: is empty\nhint: copy it again\n",
        ),
        (UserError("a.jpg: is empty"), 2, "error: a.jpg: is empty\n"),
        (MemoryError(), 2, "error: out of memory\nhint: use a smaller --batch, or smaller images\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/tmp/x"),
            2,
            "error: /tmp/x: No space left on device\nhint: check its folder and free space\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_goes_wrong_is_a_sentence_a_hint_and_an_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("maskrcnn.cli.info.describe", fail)
    ran = run("info", "model.safetensors")
    assert (ran.code, ran.out, ran.err) == (code, "", text)


def test_a_mistake_of_ours_and_the_debug_switch_show_the_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> None:
        raise error

    monkeypatch.setattr("maskrcnn.cli.info.describe", lambda _: fail(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        run("info", "model.safetensors")
    monkeypatch.setenv("MASKRCNN_DEBUG", "1")
    with pytest.raises(UserError):
        run("predict", "missing.safetensors", "missing.jpg")


def test_a_reader_that_leaves_is_not_worth_a_word(model_file: Path) -> None:
    ran = subprocess.run(
        f'{sys.executable} -c "{PYTHON[2]}" info --json {model_file} | head -c 1',
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("{", "")


def test_an_interrupted_prediction_keeps_what_is_done(
    model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    """Ctrl-C in the midst of many images: exit code 130, whole pictures, a whole list of the finished
    images.
    """
    out = tmp_path / "out"
    for number in range(400):
        os.link(photographs / "1.jpg", photographs / f"copy{number}.jpg")
    arguments = ("predict", model_file, photographs, "--out", out, "--save", "image,coco", "--score", "0")
    process = subprocess.Popen(
        [*PYTHON, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.startswith("stopped: ")
    said = re.match(r"stopped: (\d+) of 403 images are done", errors)
    assert said
    # The signal may fall between writing an image's results and saying so.
    names = {item["file_name"] for item in json.loads((out / "predictions.json").read_text())}
    lines = 1 + len(printed.splitlines())
    assert abs(lines - int(said[1])) <= 1
    assert abs(len(names) - int(said[1])) <= 1
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_colour_is_left_out_where_it_is_not_wanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("--help").out


def test_a_library_of_an_extra_that_is_missing_is_told_with_its_extra() -> None:
    told = in_words(ModuleNotFoundError("no hotcoco", name="hotcoco"))
    assert told is not None and told.message == "this needs hotcoco, which is not installed"
    assert told.hint == 'install it with `pip install "maskrcnn[eval]"`'
    assert in_words(ModuleNotFoundError("no maskrcnn.oops", name="maskrcnn.oops")) is None
