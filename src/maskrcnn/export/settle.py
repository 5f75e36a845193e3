"""An exported file gets the report of its check inside, and its name; or it is kept as a rejected one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from maskrcnn.errors import UserError
from maskrcnn.export.staged import REJECTED
from maskrcnn.spec import Check, Spec
from maskrcnn.stored_spec import KEY, PARTS_FILE, engine_header, plan_offset, stored_spec
from maskrcnn.whole_file import disk_errors_told, on_this_machine, temporary_path

BLOCK = 1 << 24


@contextmanager
def own_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is not yet to have its name; it is gone afterwards, with what is left.

    Raises UserError where the disk refuses, and for what is a URL.
    """
    on_this_machine(out)
    folder = temporary_path(out)
    try:
        with disk_errors_told(out):
            folder.mkdir(parents=True)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settle(folder: Path, out: Path, rejected: bool) -> Path:
    """Give the files in a folder that `own_folder` made their names beside `out`; returns that of `out`.

    The file that names the others comes last, so that it is never without them. Older files are replaced.
    """
    ending = REJECTED if rejected else ""
    found = sorted(folder.iterdir(), key=lambda path: path.name == out.name)
    for path in found:
        target = out.with_name(path.name + ending)
        if target.is_dir() and not target.is_symlink():
            os.replace(target, folder / f"{path.name}.older")
        os.replace(path, target)
    return out.with_name(out.name + ending)


def store_check(path: Path, check: Check) -> None:
    """Write a report into an exported file or folder that has a description."""
    spec = stored_spec(path)
    if spec.exported is None:
        raise UserError(f"{path}: is no exported graph", hint="export it again")
    _store(path, replace(spec, exported=replace(spec.exported, check=check)))


def _store(path: Path, spec: Spec) -> None:
    writers = {".onnx": _in_onnx, ".xml": _in_openvino, ".engine": _in_engine, ".parts": _in_parts}
    writers[path.suffix.lower()](path, spec)


def _in_onnx(path: Path, spec: Spec) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(
        model, {each.key: each.value for each in model.metadata_props} | {KEY: spec.to_json()}
    )
    onnx.save(model, path)


def _in_openvino(path: Path, spec: Spec) -> None:
    from xml.etree import ElementTree

    tree = ElementTree.parse(path)
    for place in (f"rt_info/{KEY}", f"rt_info/framework/{KEY}"):
        found = tree.getroot().find(place)
        if found is not None:
            found.set("value", spec.to_json())
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _in_engine(path: Path, spec: Spec) -> None:
    copy = temporary_path(path)
    with open(path, "rb") as old, open(copy, "wb") as file:
        file.write(engine_header(spec))
        old.seek(plan_offset(path))
        shutil.copyfileobj(old, file, BLOCK)
    os.replace(copy, path)


def _in_parts(path: Path, spec: Spec) -> None:
    """In the folder's own file, and in those of its graphs that have one."""
    for part in sorted(path.iterdir()):
        if part.suffix in (".onnx", ".xml") and _has_description(part):
            _store(part, spec)
    (path / PARTS_FILE).write_text(spec.to_json(), encoding="utf-8")


def _has_description(path: Path) -> bool:
    try:
        stored_spec(path)
    except UserError:
        return False
    return True
