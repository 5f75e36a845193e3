"""The bad input drill: each of these works, or is told in one line with what to do, without a traceback."""

import io
import os
import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Ran, Run
from PIL import Image
from safetensors.numpy import load_file, save_file

from maskrcnn import read_image
from maskrcnn.weights.model_file import KEY, read_spec


def assert_told(ran: Ran, *words: str) -> None:
    """One `error:` and one `hint:` on stderr, the words in the error, nothing on stdout, exit code 2."""
    assert ran.code == 2, ran
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], ran.err
    for word in words:
        assert word in lines[0]


def picture() -> Image.Image:
    """A small photograph-like image, 90 wide and 60 high."""
    small = np.random.default_rng(3).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(cv2.resize(small, (90, 60)))


def jpeg(image: Image.Image, **options: object) -> bytes:
    """The JPEG file of an image."""
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def write_working(kind: str, folder: Path) -> Path:
    """An unusual but good image file."""
    path = folder / f"{kind}.png"
    if kind == "alpha":
        picture().convert("RGBA").save(path)
    elif kind == "16-bit":
        cv2.imwrite(str(path), np.asarray(picture()).astype(np.uint16) * 257)
    elif kind == "grey":
        picture().convert("L").save(path)
    elif kind == "palette":
        picture().quantize(16).save(path)
    elif kind == "1x1":
        picture().resize((1, 1)).save(path)
    elif kind == "1x3000":
        picture().resize((3000, 1)).save(path)
    elif kind == "gif":
        path = path.with_suffix(".gif")
        picture().save(path)
    else:
        path = path.with_suffix(".jpg")
        exif = Image.Exif()
        exif[0x0112] = 6
        image = picture().convert("CMYK") if kind == "cmyk" else picture()
        path.write_bytes(jpeg(image, **({"exif": exif} if kind == "rotated" else {})))
    return path


@pytest.mark.parametrize(
    "kind", ["alpha", "16-bit", "grey", "cmyk", "rotated", "palette", "gif", "1x1", "1x3000"]
)
def test_an_unusual_image_works(run: Run, model_file: Path, tmp_path: Path, kind: str) -> None:
    path = write_working(kind, tmp_path)
    ran = run("predict", model_file, path, "--out", tmp_path / "out", "--score", "0.2")
    assert (ran.code, ran.err) == (0, "")
    shape = read_image(tmp_path / "out" / ran.out.split("/")[-1].strip()).shape
    assert shape == read_image(path).shape
    if kind == "rotated":
        assert shape == (90, 60, 3)


def test_a_truncated_jpeg_is_told(run: Run, model_file: Path, tmp_path: Path) -> None:
    contents = jpeg(picture(), quality=95)
    (tmp_path / "half.jpg").write_bytes(contents[: len(contents) // 2])
    ran = run("predict", model_file, tmp_path / "half.jpg", "--out", tmp_path / "out")
    assert_told(ran, "half.jpg", "damaged or incomplete JPEG")
    assert os.listdir(tmp_path / "out") == []


def test_a_text_named_as_an_image_is_told(run: Run, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a photograph")
    assert_told(
        run("predict", model_file, tmp_path / "notes.jpg", "--out", tmp_path / "out"), "is not an image"
    )


def test_an_empty_folder_is_told(run: Run, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_told(run("predict", model_file, tmp_path / "empty", "--out", tmp_path / "out"), "holds no image")


def test_a_missing_image_is_told_before_anything_is_predicted(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    ran = run("predict", model_file, photographs, tmp_path / "missing.jpg", "--out", tmp_path / "out")
    assert_told(ran, "missing.jpg", "no such file")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_bad_images_only_names_each_and_exits_with_2(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    ran = run("predict", model_file, tmp_path, "--out", tmp_path / "out", "--save", "coco")
    assert ran.code == 2
    assert [line.split(" is")[0] for line in ran.err.splitlines()[:2]] == [
        f"error: {tmp_path}/a.jpg:", f"error: {tmp_path}/b.jpg:"
    ]  # fmt: skip
    assert os.listdir(tmp_path / "out") == []


def test_a_folder_as_model_is_told(run: Run, photographs: Path, tmp_path: Path) -> None:
    assert_told(run("predict", tmp_path, photographs), str(tmp_path), "is a folder")
    assert_told(run("info", tmp_path), str(tmp_path), "is a folder")


class Malicious:
    """Unpickling it would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".safetensors"])
def test_a_pickle_as_model_runs_nothing(run: Run, photographs: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps({"model": Malicious(tmp_path / "pwned")}))
    assert_told(run("predict", path, photographs, "--out", tmp_path / "out"), str(path))
    assert_told(run("convert", path, tmp_path / "out.safetensors"), str(path))
    assert not (tmp_path / "pwned").exists()


def rewritten(model_file: Path, tmp_path: Path, change: str) -> Path:
    """The model file with a fault in its tensors or its description."""
    tensors = load_file(model_file)
    description = read_spec(model_file).to_json()
    name = "rpn.objectness.weight"
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        tensors["rpn.surplus.weight"] = np.zeros(3, np.float32)
    elif change == "shape":
        tensors[name] = np.zeros((1, 2, 3), np.float32)
    elif change == "unknown setting":
        description = description.replace('"depth":18', '"depht":18')
    elif change == "newer":
        description = description.replace('"format":1', '"format":99')
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path, {KEY: description})
    return path


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("missing", "rpn.objectness.weight"),
        ("extra", "rpn.surplus.weight"),
        ("shape", "rpn.objectness.weight"),
        ("unknown setting", "did you mean `depth`?"),
        ("newer", "newer version"),
    ],
)
def test_a_model_file_with_a_fault_is_told_with_its_name(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path, change: str, word: str
) -> None:
    path = rewritten(model_file, tmp_path, change)
    assert_told(run("predict", path, photographs, "--out", tmp_path / "out"), str(path), word)


@pytest.mark.parametrize("kept", [0, 5, 2000, -1000])
def test_a_truncated_model_file_is_told(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "part.safetensors"
    path.write_bytes(model_file.read_bytes()[:kept])
    assert_told(run("predict", path, photographs, "--out", tmp_path / "out"), str(path))


def test_a_header_that_claims_more_than_the_file_holds_is_told(
    run: Run, photographs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    assert_told(run("predict", path, photographs, "--out", tmp_path / "out"), str(path))


def test_a_folder_that_cannot_be_written_is_told(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file in the way")
    assert_told(run("predict", model_file, photographs, "--out", tmp_path / "out"), "out: cannot be written")


def test_a_full_disk_is_told_and_leaves_no_pieces(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, contents: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    ran = run("predict", model_file, photographs, "--out", tmp_path / "out", "--save", "image,coco")
    assert_told(ran, "No space left on device")
    assert os.listdir(tmp_path / "out") == []
