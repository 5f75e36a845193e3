"""What calibrates each graph of a model: photographs as the model gets them, and features between its graphs.

B images of one run, R boxes of one image, C channels, S bins per side.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from maskrcnn.backends.parts import Graphs, PartsBackend, open_parts
from maskrcnn.backends.whole_graph import Session
from maskrcnn.host.normalise import normalised
from maskrcnn.images import ImageFile
from maskrcnn.preprocess import batch, prepare
from maskrcnn.spec import Exported, Spec

Arrays = dict[str, np.ndarray]

# Boxes of an image that calibrate a head: 64 images of pooled 256 x 7 x 7 are 200 MB.
BOXES, MASKS = 64, 16


class Photographs:
    """The inputs `image` and `size` of a whole graph, from image files, prepared anew each time.

    Of a graph for a fixed number of images that many a time, the last one repeated where files run out.
    count: how many inputs that makes.
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        spec: Spec,
        watch: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        self.files = list(files)
        self.spec = spec
        self.watch = watch
        self.together = (spec.exported or Exported()).batch or 1
        self.count = math.ceil(len(self.files) / self.together)

    def __iter__(self) -> Iterator[Arrays]:
        dtype = (self.spec.exported or Exported()).image
        for start in range(0, len(self.files), self.together):
            self.watch("calibrating", start, len(self.files))
            some = self.files[start : start + self.together]
            some += some[-1:] * (self.together - len(some))
            planes = [prepare(file.read(), self.spec.preprocess)[0] for file in some]
            image, size = batch(planes, self.spec.preprocess)
            yield {"image": np.ascontiguousarray(image, dtype), "size": size}


class Normalised:
    """The input `image` of a dense graph: what Photographs give, normalised."""

    def __init__(self, photographs: Photographs) -> None:
        self.photographs = photographs

    def __iter__(self) -> Iterator[Arrays]:
        for each in self.photographs:
            yield {"image": normalised(each["image"], each["size"], self.photographs.spec.model)}


def pooled_features(folder: Path, photographs: Photographs) -> dict[str, list[Arrays]]:
    """The inputs `features` (R, C, S, S) of both heads of a `.parts` model, by the names of the graphs.

    Of each image some boxes, spread evenly over its proposals and its detections.
    """
    opened = open_parts(folder)
    met: dict[str, list[Arrays]] = {"box_head": [], "mask_head": []}
    graphs = Graphs(
        opened.graphs.dense,
        _listening(opened.graphs.box_head, met["box_head"].append, BOXES),
        _listening(opened.graphs.mask_head, met["mask_head"].append, MASKS),
    )
    backend = PartsBackend(opened.spec, graphs)
    for each in photographs:
        backend.run(each["image"], each["size"])
    return met


def _listening(session: Session, keep: Callable[[Arrays], None], most: int) -> Session:
    """The same session, which shows at most so many rows of what it is given."""

    def run(arrays: Arrays) -> Arrays:
        features = arrays["features"]
        if len(features):
            rows = np.linspace(0, len(features) - 1, min(most, len(features))).astype(int)
            keep({"features": np.ascontiguousarray(features[rows])})
        return session(arrays)

    return run
