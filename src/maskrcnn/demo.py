"""The demonstration's photographs, copied out of installed packages: `python -m maskrcnn.demo FOLDER`."""

import sys
from importlib.util import find_spec
from pathlib import Path

from maskrcnn.errors import UserError
from maskrcnn.whole_file import whole_file

# (package, file inside its wheel). The portraits, of NASA and the US Navy, are in the public domain, others
# are CC0 (scikit-image documents this with its data), so pictures drawn over them may be published.
PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/rocket.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


def write_photographs(folder: Path) -> list[Path]:
    """Copy the photographs into `folder`, made if missing; nothing is downloaded. -> their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_copy(package, inside, folder) for package, inside in PHOTOGRAPHS]


def _copy(package: str, inside: str, folder: Path) -> Path:
    target = folder / Path(inside).name
    # The package is not imported, so nothing that it depends on needs to be there.
    found = find_spec(package)
    try:
        if found is None or found.origin is None:
            raise FileNotFoundError(package)
        photograph = (Path(found.origin).parent / inside).read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{package}/{inside}: this photograph of the demonstration is not installed",
            hint='install it with `pip install "maskrcnn[demo]"`',
        ) from error
    with whole_file(target) as temporary:
        temporary.write_bytes(photograph)
    return target


if __name__ == "__main__":
    try:
        write_photographs(Path(sys.argv[1] if len(sys.argv) > 1 else "photographs"))
    except UserError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
