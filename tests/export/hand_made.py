"""Hand-made models for the checks, one in numpy and one as an ONNX graph: each finds what it is told to."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from maskrcnn.config import BoxHeadConfig, ModelConfig
from maskrcnn.detections import Raw
from maskrcnn.predict import Predictor
from maskrcnn.spec import Classes, Exported, Preprocess, Spec

ROWS, SIDE = 4, 4
# In network pixels; every image below is resized to at least 32 x 32 of them.
BOXES = np.float32([[2, 2, 12, 12], [14, 4, 30, 20], [4, 16, 12, 30], [20, 20, 31, 31]])
SCORES = np.float32([0.9, 0.7, 0.6, 0.2])


def description(precision: str = "fp32", batch: int = 0) -> Spec:
    """Two classes, sides of 32 to 64 pixels, at most four objects."""
    return Spec(
        model=ModelConfig(classes=2, box_head=BoxHeadConfig(detections=ROWS)),
        preprocess=Preprocess(short=32, long=64),
        classes=Classes(("cat", "dog"), (17, 18)),
        precision=precision,  # type: ignore[arg-type]
        exported=Exported(batch=batch),
    )


def rows(images: int = 1) -> Raw:
    """Four objects in every image."""
    masks = np.zeros((images, ROWS, SIDE, SIDE), np.float32)
    masks[:, :, 1:] = 0.9
    boxes, scores = (np.repeat(each[None], images, 0) for each in (BOXES, SCORES))
    return Raw(boxes, scores, np.zeros((images, ROWS), np.int64) + [0, 1, 0, 1], masks)


def no_rows(images: int = 1) -> Raw:
    """Nothing in any image."""
    return Raw(*(np.zeros_like(each) for each in rows(images)))


@dataclass
class Finds:
    """An engine that finds the four objects where an image is not even, changed by `change(rows, run)`."""

    spec: Spec = field(default_factory=description)
    change: Callable[[Raw, int], Raw] = lambda raw, run: raw
    sizes: list[tuple[int, ...]] = field(default_factory=list)

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """image (B, 3, H, W) -> Raw."""
        self.sizes.append(image.shape)
        even = image[:, :, :8, :8].max((1, 2, 3)) == image[:, :, :8, :8].min((1, 2, 3))
        empty = no_rows(len(image))
        found = Raw(
            *(
                np.where(even.reshape(-1, *[1] * (a.ndim - 1)), b, a)
                for a, b in zip(rows(len(image)), empty, strict=True)
            )
        )
        return self.change(found, len(self.sizes) - 1)


def finds(change: Callable[[Raw, int], Raw] = lambda raw, run: raw, **spec: object) -> Predictor:
    """A model that runs on `Finds`."""
    return Predictor(Finds(replace(description(), **spec), change))  # type: ignore[arg-type]


def write_graph(path: Path, gain: float = 0.5, moved: float = 0.0, spec: Spec | None = None) -> Path:
    """The same as an ONNX graph with the stages `stem` and `proposals`.

    gain: of the stem, which only says whether an image is even. moved: pixels to add to the boxes' x.
    """
    import onnx
    from onnx import TensorProto as T
    from onnx import helper, numpy_helper

    constants = {
        "gain": np.float32(gain),
        "boxes_of_one": (BOXES + np.float32([moved, 0, moved, 0]))[None],
        "scores_of_one": SCORES[None],
        "labels_of_one": rows().labels,
        "masks_of_one": rows().masks,
        "zeros": np.zeros(2, np.int64),
        "eights": np.full(2, 8, np.int64),
        "sides": np.array([2, 3], np.int64),
        "all": np.array([1, 2, 3], np.int64),
        "one": np.array([1], np.int64),
        "minus": np.array([-1], np.int64),
        "nothing": np.float32(0),
    }
    nodes = [
        helper.make_node("Mul", ["image", "gain"], ["stage.stem"]),
        helper.make_node("Slice", ["stage.stem", "zeros", "eights", "sides"], ["corner"]),
        helper.make_node("ReduceMax", ["corner", "all"], ["most"], keepdims=0),
        helper.make_node("ReduceMin", ["corner", "all"], ["least"], keepdims=0),
        helper.make_node("Sub", ["most", "least"], ["range"]),
        helper.make_node("Greater", ["range", "nothing"], ["some"]),
        helper.make_node("Unsqueeze", ["some", "one"], ["some_rows"]),
        *_spread("boxes", 2, T.FLOAT, "stage.proposals"),
        *_spread("scores", 1, T.FLOAT),
        *_spread("labels", 1, T.INT64),
        *_spread("masks", 3, T.FLOAT),
        helper.make_node("Relu", ["stage.proposals"], ["boxes"]),
    ]
    inputs = [("image", T.FLOAT, ["batch", 3, "height", "width"]), ("size", T.INT64, ["batch", 2])]
    outputs = [
        ("boxes", T.FLOAT, ["batch", ROWS, 4]),
        ("scores", T.FLOAT, ["batch", ROWS]),
        ("labels", T.INT64, ["batch", ROWS]),
        ("masks", T.FLOAT, ["batch", ROWS, SIDE, SIDE]),
    ]
    graph = helper.make_graph(
        nodes,
        "hand made",
        *([helper.make_tensor_value_info(*each) for each in values] for values in (inputs, outputs)),
        initializer=[numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"maskrcnn": (spec or description()).to_json()})
    onnx.save(model, path)
    return path


def _spread(name: str, after: int, kind: int, output: str = "") -> list:  # type: ignore[type-arg]
    """A value whose rows are those of one image, times 0 where an image is even."""
    from onnx import helper

    nodes = [helper.make_node("Cast", ["some_rows"], [f"{name}_some"], to=kind)]
    shaped = f"{name}_some"
    for number in range(after - 1):
        nodes.append(helper.make_node("Unsqueeze", [shaped, "minus"], [f"{name}_some{number}"]))
        shaped = f"{name}_some{number}"
    return [*nodes, helper.make_node("Mul", [f"{name}_of_one", shaped], [output or name])]
