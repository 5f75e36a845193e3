"""Image files are found in the order a person expects and read as the picture a person sees."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from maskrcnn.errors import UserError
from maskrcnn.images import decode, find_images, read_image
from maskrcnn.whole_file import shown

RED, GREEN, BLUE, GREY = (200, 10, 20), (10, 180, 30), (20, 30, 220), (90, 90, 90)


def quarters(height: int = 32, width: int = 48) -> np.ndarray:
    """Four plain quarters: red, green over blue, grey; plain so that lossy formats keep them."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, GREY
    return image


def encoded(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    """The file of an image, by Pillow."""
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(height: int = 64, width: int = 64) -> np.ndarray:
    """Pixels that do not compress, so that half a file is half a picture."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    """Pixels in the middle of the four quarters."""
    height, width = image.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(int(value) for value in image[place]) for place in places]


def assert_quarters(image: np.ndarray, tolerance: int) -> None:
    """The picture of `quarters`, up to what a lossy format does to plain colours."""
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    wanted = np.array([RED, GREEN, BLUE, GREY])
    assert np.abs(np.array(corners(image)) - wanted).max() <= tolerance


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("PPM", 0), ("GIF", 0), ("JPEG2000", 0), ("JPEG", 6), ("WEBP", 12)],
)
def test_a_format_is_read_as_rgb(kind: str, tolerance: int) -> None:
    image = decode(encoded(quarters(), kind), "picture")
    assert image.shape == (32, 48, 3)
    assert_quarters(image, tolerance)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_rotation_is_applied_exactly_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    contents = encoded(quarters(), kind, exif=exif)
    with Image.open(io.BytesIO(contents)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    image = decode(contents, "picture")
    assert image.shape == ((48, 32, 3) if orientation >= 5 else (32, 48, 3))
    assert np.abs(np.array(corners(image)) - np.array(corners(expected))).max() <= 2


def test_an_image_stored_lying_on_its_side_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise by 90 degrees"
    image = decode(encoded(quarters(), "PNG", exif=exif), "picture")
    assert corners(image) == [BLUE, RED, GREY, GREEN]


def test_the_alpha_plane_is_dropped() -> None:
    with_alpha = np.dstack([quarters(), np.full((32, 48), 7, np.uint8)])
    assert_quarters(decode(encoded(with_alpha, "PNG"), "picture"), 0)


def test_of_sixteen_bits_the_high_byte_is_kept() -> None:
    deep = quarters().astype(np.uint16) * 256 + 99
    for suffix in (".png", ".tiff"):
        _, contents = cv2.imencode(suffix, deep[..., ::-1])
        assert_quarters(decode(contents.tobytes(), "picture"), 0)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_sixteen_bit_grey_becomes_three_equal_planes(suffix: str) -> None:
    _, contents = cv2.imencode(suffix, np.full((4, 5), 0x5A33, np.uint16))
    image = decode(contents.tobytes(), "picture")
    assert image.shape == (4, 5, 3)
    # OpenCV's PNG reader rounds the low byte or cuts it off, by version.
    assert np.abs(image.astype(int) - 0x5A).max() <= 1


def test_samples_of_32_bits_are_refused() -> None:
    _, contents = cv2.imencode(".tiff", np.full((4, 5), 0.5, np.float32))
    with pytest.raises(UserError, match="32-bit"):
        decode(contents.tobytes(), "picture")


def test_a_grey_jpeg_becomes_three_equal_planes() -> None:
    image = decode(encoded(Image.new("L", (9, 7), 90), "JPEG"), "picture")
    assert image.shape == (7, 9, 3)
    assert np.abs(image.astype(int) - 90).max() <= 1


def test_a_palette_is_looked_up() -> None:
    image = decode(encoded(Image.fromarray(quarters()).quantize(8), "PNG"), "picture")
    assert_quarters(image, 8)


def test_a_cmyk_jpeg_shows_the_colours_that_were_printed() -> None:
    image = decode(encoded(Image.fromarray(quarters()).convert("CMYK"), "JPEG", quality=95), "picture")
    assert_quarters(image, 8)


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.fromarray(quarters()), Image.new("RGB", (48, 32), (1, 2, 3))]
    contents = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert_quarters(decode(contents, "picture"), 0)


def test_an_image_of_one_pixel_is_an_image() -> None:
    assert decode(encoded(np.full((1, 1, 3), 77, np.uint8), "PNG"), "dot").tolist() == [[[77, 77, 77]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_an_error_and_not_a_grey_picture(kind: str, share: float) -> None:
    contents = encoded(noise(), kind)
    with pytest.raises(UserError, match="^holiday: "):
        decode(contents[: int(len(contents) * share)], "holiday")


def test_a_truncated_jpeg_is_noticed_although_its_thumbnail_is_whole() -> None:
    thumbnail = encoded(noise(8, 8), "JPEG")
    header = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    contents = encoded(noise(), "JPEG")
    whole = contents[:2] + header + contents[2:]
    assert decode(whole, "picture").shape == (64, 64, 3)
    with pytest.raises(UserError, match="incomplete JPEG"):
        decode(whole[: len(whole) // 2], "picture")


def test_a_small_file_that_claims_a_billion_pixels_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(UserError, match="bomb.png: has 40000 x 40000 pixels, more than 500 megapixels"):
        decode(bomb, "bomb.png")


def test_a_text_named_as_an_image_is_told_from_one(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("milk, eggs, bread")
    with pytest.raises(UserError, match=r"notes.jpg: is not an image \(it starts with b'milk, eggs, '\)"):
        read_image(path)


def test_an_empty_file_is_named_as_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(UserError, match=r"empty.png: is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.png")


def test_heic_is_named_with_a_way_out() -> None:
    with pytest.raises(UserError, match="is HEIC") as caught:
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "IMG_0001.HEIC")
    assert "JPEG" in caught.value.hint


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UserError, match="is not a file"):
        read_image(tmp_path / "pipe.jpg")


def touch(folder: Path, *names: str) -> None:
    """Empty files, with the folders they stand in."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_of(*sources: str | Path, skip: Path | None = None) -> list[str]:
    """The names that `find_images` gives."""
    return [image.name for image in find_images(sources, skip)]


def test_a_folder_is_searched_to_the_bottom_in_the_order_people_count(tmp_path: Path) -> None:
    touch(tmp_path, "10.jpg", "9.jpg", "a2/1.png", "a10/1.png", "Zoo.TIF", "apple.jpeg")
    expected = ["9.jpg", "10.jpg", "a2/1.png", "a10/1.png", "apple.jpeg", "Zoo.TIF"]
    assert names_of(tmp_path) == expected


def test_hidden_files_and_other_kinds_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".b.jpg", "._a.jpg", ".git/c.jpg", "notes.txt", "jpg", "d.jpg.txt")
    assert names_of(tmp_path) == ["a.jpg"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.jpg")
    (tmp_path / "sub/up").symlink_to(tmp_path)
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    assert names_of(tmp_path) == ["self.jpg", "sub/a.jpg"]
    with pytest.raises(UserError, match=r"self.jpg: cannot be read"):
        read_image(tmp_path / "self.jpg")


def test_results_inside_the_searched_folder_are_not_predicted_again(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "predictions/a.jpg")
    assert names_of(tmp_path, skip=tmp_path / "predictions") == ["a.jpg"]
    assert names_of(tmp_path / "predictions", skip=tmp_path / "predictions") == ["a.jpg"]


def test_a_pattern_finds_images_and_names_them_from_where_they_share_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.jpg", "y/1.jpg", "y/1.txt", "z.png")
    assert names_of(f"{tmp_path}/*/*") == ["x/1.jpg", "y/1.jpg"]
    assert names_of(f"{tmp_path}/**/*.jpg") == ["x/1.jpg", "y/1.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path, "photo[1].jpg", "photo1.jpg")
    assert names_of(tmp_path / "photo[1].jpg") == ["photo[1].jpg"]


def test_a_named_file_is_read_whatever_its_suffix_and_only_once(tmp_path: Path) -> None:
    touch(tmp_path, "scan.dat", "b.jpg")
    assert names_of(tmp_path / "scan.dat", tmp_path, tmp_path / "b.jpg") == ["scan.dat", "b.jpg"]


@pytest.mark.parametrize(
    ("source", "message"),
    [("empty", "holds no image"), ("missing.jpg", "no such file or folder"), ("*.jpg", "no file matches")],
)
def test_a_source_without_images_is_named(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        find_images([tmp_path / source])
    assert source in caught.value.message


def test_a_name_of_several_lines_is_shown_as_one() -> None:
    assert shown("two\nlines\x1b.jpg") == r"two\nlines\x1b.jpg"
    assert shown("straße 東京.jpg") == "straße 東京.jpg"
    assert shown(os.fsdecode(b"caf\xe9.jpg")) == r"caf\xe9.jpg"
