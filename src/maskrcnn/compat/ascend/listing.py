"""The info file of Ascend's scripts, made of a folder of images or of bins."""

from pathlib import Path

from maskrcnn.compat.ascend.bins import Listed, Size, info_lines, their_stem
from maskrcnn.compat.ascend.write import in_their_order
from maskrcnn.errors import UserError
from maskrcnn.images import find_images, natural_order
from maskrcnn.whole_file import shown, whole_file


def write_info(kind: str, folder: Path, out: Path, size: Size | None = None) -> int:
    """Write `<index> <path> <width> <height>` of every `jpg` or `bin` in a folder; returns how many.

    size: (height, width) of every bin. Raises UserError for images that cannot be read, and for none.
    """
    images = _bins(folder, size) if kind == "bin" else _images(folder)
    with whole_file(out) as temporary:
        lines = "".join(info_lines(images, restart=kind != "bin"))
        temporary.write_text(lines, encoding="utf-8", errors="surrogateescape")
    return len(images)


def _images(folder: Path) -> list[Listed]:
    from maskrcnn.data.pictures import measure

    listed = []
    for file in in_their_order(find_images([folder])):
        measured = measure(file.path)
        if measured is None:
            file.read()  # says what is wrong with it
            raise UserError(f"{shown(file.path)}: its size is not known", hint="save it as JPEG")
        listed.append(Listed(their_stem(file.path), str(file.path), measured.upright))
    if not listed:
        raise UserError(f"{shown(folder)}: holds no .jpg or .jpeg", hint="name the folder of the images")
    return listed


def _bins(folder: Path, size: Size | None) -> list[Listed]:
    if size is None:
        raise UserError("a bin says nothing of its size", hint="add width and height")
    found = sorted(folder.glob("*.bin"), key=lambda path: natural_order(path.name))
    if not found:
        raise UserError(f"{shown(folder)}: holds no .bin", hint="name the folder of the bins")
    return [Listed(their_stem(path), str(path), size) for path in found]
