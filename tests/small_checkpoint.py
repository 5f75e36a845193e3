"""A small checkpoint of detectron2, and its entry in a zoo on this machine."""

import hashlib
import runpy
from dataclasses import replace
from pathlib import Path

from misbehaving_server import Server

from maskrcnn.download import Digest
from maskrcnn.zoo import Entry

NAME = "detectron2/tiny"


def small_checkpoint(path: Path) -> Path:
    """A random ResNet-18 FPN of five classes, as detectron2 saves it, 2 MB."""
    frameworks = runpy.run_path(str(Path(__file__).parent / "weights" / "frameworks.py"))
    return frameworks["detectron2_file"](path, depth=18)


def published(server: Server, checkpoint: bytes, **changes: object) -> Entry:
    """An entry whose checkpoint this server has, with the first digits of its md5 in the name."""
    md5 = hashlib.md5(checkpoint).hexdigest()
    settings = ("model.rpn.post_nms=20", "model.rpn.pre_nms=40", "preprocess.short=64", "preprocess.long=96")
    url = f"{server.url}/zoo/model_final_{md5[:6]}.pkl"
    entry = Entry(NAME, url, "https://page", 1.0, 2.0, digest=Digest("md5", md5[:6]), settings=settings)
    entry = replace(entry, **changes)  # type: ignore[arg-type]
    server.manners.files[f"/zoo/{entry.file_name}"] = checkpoint
    return entry
