"""Finds image files and reads each as the RGB picture that a person sees."""

import glob
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown

# What a folder or a pattern is searched for. HEIC cannot be read: it is found to be named, not passed over.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".jp2"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
READABLE = "JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, PNM and AVIF"
# 1.5 GB as RGB; a small file that claims more is an accident or an attack.
MOST_PIXELS = 500_000_000
# First bytes and Pillow's name of the format.
MAGIC = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF"),
    (rb"BM", "BMP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG2000"),
    (rb"P[1-6]\s", "PPM"),
    (rb"....ftyp(avif|avis)", "AVIF"),
    (rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", "HEIC"),
)
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageFile:
    """One image to read. path: unlike that of every other image, also where it is no file on the disk.

    name: `/` between parts; relative to a searched folder, else the bare name.
    load: gives its pixels where path is no file: a member of an archive, an address, a frame of a video.
    place: how a user names it, where that is not its path.
    """

    path: Path
    name: str
    load: Callable[[], np.ndarray] | None = None
    place: str = ""

    def read(self) -> np.ndarray:
        """uint8 (H, W, 3) RGB, upright. Raises UserError for what is no readable image."""
        return read_image(self.path) if self.load is None else self.load()


def find_images(sources: Iterable[str | Path], skip: Path | None = None) -> list[ImageFile]:
    """The images of files, folders (searched to the bottom) and patterns such as `photos/*.jpg`, each once.

    Sources stay in their order; inside one, names are in the order a person counts: 2.jpg before 10.jpg.
    Hidden files and the folder `skip` are passed over. Raises UserError for a source that is missing or holds
    no image.
    """
    found: dict[str, ImageFile] = {}
    for source in sources:
        for image in _images_of(str(source), skip):
            found.setdefault(os.path.abspath(image.path), image)
    if not found:
        raise UserError("no images are named", hint="name files, folders or patterns such as 'photos/*.jpg'")
    return list(found.values())


def read_image(path: str | Path) -> np.ndarray:
    """An image file -> uint8 (H, W, 3) RGB, EXIF rotation applied once.

    Of 16-bit samples the high byte is kept, of an animation the first frame; alpha is dropped, as every
    public model was trained. Raises UserError for what is not a whole image of at most 500 megapixels.
    """
    place = shown(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{place}: is not a file", hint="name an image file")
        with open(path, "rb") as file:
            contents = file.read()
    except OSError as error:
        raise UserError(
            f"{place}: cannot be read ({error.strerror})", hint="check its permissions"
        ) from error
    return decode(contents, place)


def decode(contents: bytes, place: str) -> np.ndarray:
    """The bytes of an image file -> uint8 (H, W, 3) RGB, as `read_image`; place names them in errors."""
    kind = _kind(contents, place)
    picture = _header(contents, kind, place)
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{place}: has {width} x {height} pixels, more than {MOST_PIXELS // 10**6} megapixels",
            hint="cut it into parts",
        )
    try:
        if _is_for_opencv(contents, kind, picture):
            return _with_opencv(contents, _orientation(picture))
        return _with_pillow(picture, place)
    except UserError:
        raise
    except Exception as error:  # each decoder has its own: OSError, SyntaxError, struct.error, cv2.error
        raise _damaged(place, kind, error) from error


def natural_order(name: str) -> list[list[tuple[bool, int, str]]]:
    """A sort key by which 2.jpg comes before 10.jpg and capitals do not matter."""

    def weigh(run: str) -> tuple[bool, int, str]:
        return (False, int(run), "") if run.isdigit() else (True, 0, run)

    return [[weigh(run) for run in re.split(r"([0-9]+)", part) if run] for part in name.casefold().split("/")]


def _images_of(source: str, skip: Path | None) -> list[ImageFile]:
    if os.path.isdir(source):
        found = _in_folder(Path(source), skip)
    elif os.path.lexists(source):  # lexists: a broken link is named as one, by read_image
        return [ImageFile(Path(source), Path(source).name)]
    elif glob.has_magic(source):
        found = _by_pattern(source, skip)
    else:
        raise UserError(f"{shown(source)}: no such file or folder", hint="check the path")
    if not found:
        raise UserError(
            f"{shown(source)}: holds no image",
            hint=f"{READABLE} are found here by their suffix; name videos and archives themselves",
        )
    return sorted(found, key=lambda image: natural_order(image.name))


def _by_pattern(pattern: str, skip: Path | None) -> list[ImageFile]:
    matches = glob.glob(pattern, recursive=True)
    if not matches:
        raise UserError(f"{shown(pattern)}: no file matches", hint="check the pattern")
    files = [Path(match) for match in matches if not os.path.isdir(match) and _is_image_name(match)]
    outside = [file for file in files if skip is None or not _is_inside(file, skip)] or files
    folder = Path(os.path.commonpath([file.parent for file in outside])) if outside else Path()
    return [ImageFile(file, file.relative_to(folder).as_posix()) for file in outside]


def _in_folder(folder: Path, skip: Path | None) -> list[ImageFile]:
    return [
        ImageFile(Path(where, name), Path(where, name).relative_to(folder).as_posix())
        for where, names in _folders(folder, skip)
        for name in names
        if _is_image_name(name)
    ]


def _folders(top: Path, skip: Path | None) -> Iterator[tuple[str, list[str]]]:
    """Every folder below `top` once, with its file names; a link back up is not followed twice."""
    if skip is not None and _is_inside(top, skip):
        skip = None
    seen: set[tuple[int, int]] = set()
    for where, folders, names in os.walk(top, followlinks=True, onerror=_refuse):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in seen or (skip is not None and _is_inside(Path(where), skip)):
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield where, names


def _refuse(error: OSError) -> None:
    place = shown(error.filename)
    raise UserError(f"{place}: cannot be read ({error.strerror})", hint="check its permissions") from error


def _is_image_name(path: str) -> bool:
    name = os.path.basename(path)
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _kind(contents: bytes, place: str) -> str:
    if not contents:
        raise UserError(f"{place}: is empty (0 bytes)", hint="copy or download it again")
    kind = next((kind for magic, kind in MAGIC if re.match(magic, contents, re.DOTALL)), None)
    if kind is None:
        raise UserError(
            f"{place}: is not an image (it starts with {contents[:12]!r})", hint=f"{READABLE} can be read"
        )
    if kind == "HEIC":
        raise UserError(f"{place}: is HEIC, which cannot be read", hint="save it as JPEG or PNG")
    return kind


def _header(contents: bytes, kind: str, place: str) -> Image.Image:
    """The picture, pixels unread, without Image.open: it warns above 89 and refuses 178 megapixels."""
    Image.preinit()
    if kind not in Image.OPEN:
        Image.init()  # the rarer formats; 50 ms
    if kind not in Image.OPEN:
        raise UserError(f"{place}: is {kind}, which this Pillow cannot read", hint="save it as JPEG or PNG")
    try:
        return Image.OPEN[kind][0](io.BytesIO(contents), place)
    except Exception as error:  # SyntaxError, OSError, struct.error and others, by format
        raise _damaged(place, kind, error) from error


def _is_for_opencv(contents: bytes, kind: str, picture: Image.Image) -> bool:
    # OpenCV is twice as fast, but its versions differ in CMYK, and some fill truncated pictures up in grey.
    if kind == "JPEG":
        return picture.mode in ("L", "RGB") and _has_jpeg_end(contents)
    return kind == "PNG" and contents.rfind(b"IEND") > 0


def _with_opencv(contents: bytes, orientation: int) -> np.ndarray:
    # Whether OpenCV rotates depends on its version and the format, so it is told not to.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(contents, np.uint8), flags)
    if image is None:
        raise ValueError("its pixels cannot be decoded")
    cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)  # in place: 324 MB less for 12000 x 9000
    return _upright(image, orientation)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientations 2 to 8 (mirrored, upside down, lying)."""
    if orientation in (5, 6, 7, 8):
        image = cv2.transpose(image)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # cv2.flip: 1 left-right, 0 top-bottom, -1 both
    return cv2.flip(image, flips[orientation]) if orientation in flips else image


def _orientation(picture: Image.Image) -> int:
    value = picture.getexif().get(EXIF_ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def _with_pillow(picture: Image.Image, place: str) -> np.ndarray:
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if not upright.mode.startswith(("I", "F")):
        return np.array(upright.convert("RGB"))
    samples = np.asarray(upright)  # 16-bit grey is "I;16" or, read from PNM, "I" like 32-bit
    if upright.mode == "F" or samples.min() < 0 or samples.max() > 65535:
        raise UserError(f"{place}: has 32-bit samples", hint="save it with 8 or 16 bits per sample")
    return cv2.merge([(samples >> 8).astype(np.uint8)] * 3)


def _has_jpeg_end(contents: bytes) -> bool:
    """Whether the end marker follows the pixels: thumbnails in the header have end markers of their own."""
    at = 2
    while at + 4 <= len(contents) and contents[at] == 0xFF and contents[at + 1] != 0xDA:
        filler = contents[at + 1] == 0xFF
        at += 1 if filler else 2 + int.from_bytes(contents[at + 2 : at + 4], "big")
    return contents.rfind(b"\xff\xd9") > at


def _damaged(place: str, kind: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return UserError(
        f"{place}: is a damaged or incomplete {kind} ({reason})", hint="copy or download it again"
    )
