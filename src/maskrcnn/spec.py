"""The description that every model file carries, and that nothing outside the file has to repeat."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class Classes:
    """Names and original dataset ids, by label 0..K-1; "" names an output that its data set never used."""

    names: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Preprocess:
    """From an image to the network's input; rules are named after the implementation that computes so.

    resize: `shortest_edge` scales so that the short side is `short`, unless the long side would pass `long`;
        `fit_window` scales to fit into (short, long) as (height, width); `letterbox` is that, centred on
        a padded window; `stretch` resizes to exactly (short, long) as (height, width).
    size_rule: how the resized size is rounded.
    filter: `opencv` INTER_LINEAR on uint8, `area` the same but INTER_AREA when shrinking, `pillow` bilinear
        on uint8 with antialiasing, `torch` float32 bilinear without antialiasing and without rounding to
        whole values.
    channels: order of the three planes of the network input.
    pad_multiple: the input is padded right and below to a multiple of it; 1 for none.
    pad_to_window: what `fit_window` makes is padded right and below to the whole window.
    pad_value: what a letterbox is filled with, 0..255: one number, or one for each channel in the order of
        `channels`; the network's own mean is zero after normalisation. Other padding is that always.
    """

    resize: Literal["shortest_edge", "fit_window", "letterbox", "stretch"] = "shortest_edge"
    short: int = 800
    long: int = 1333
    size_rule: Literal["torchvision", "detectron2", "mmdetection", "maskrcnn_benchmark", "caffe2"] = (
        "detectron2"
    )
    filter: Literal["opencv", "area", "pillow", "torch"] = "opencv"
    channels: Literal["rgb", "bgr"] = "rgb"
    pad_multiple: int = 32
    pad_to_window: bool = False
    pad_value: float | tuple[float, float, float] = 0.0

    def __post_init__(self) -> None:
        for name in ("short", "long", "pad_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and must be 1 or more")
        if not all(0 <= value <= 255 for value in self.fill):
            raise ValueError(f"pad_value is {self.pad_value}, and must be 0 to 255")

    @property
    def fill(self) -> tuple[float, float, float]:
        """`pad_value` of each channel."""
        value = self.pad_value
        return value if isinstance(value, tuple) else (value, value, value)


@dataclass(frozen=True)
class Origin:
    """Where the weights came from. sha256: of the file that was read, "" for a model trained here."""

    source: str = "maskrcnn"
    file: str = ""
    sha256: str = ""
    tool_version: str = ""


Contract = Literal["maskrcnn", "mmdetection", "segmentoly", "ascend", "model-api", "torchvision"]


@dataclass(frozen=True)
class Check:
    """What a comparison of an exported graph with the model it was made of found.

    images: compared. matched: detections that both found. missed: those of either that are not the same in
        the other, of a repeated run as well. box_px: largest distance of a box coordinate, in image pixels.
        score: largest difference of a score.
    mask_pixels: share of the masks' pixels that agree. precision: (metric, before, after) of every average
        precision that was measured, 0..1.
    on: the images in words. stages: name and difference, as a share of the stage's largest value, on one
        image; empty where the engine tells none.
    """

    images: int = 0
    matched: int = 0
    missed: int = 0
    box_px: float = 0.0
    score: float = 0.0
    mask_pixels: float = 1.0
    precision: tuple[tuple[str, float, float], ...] = ()
    on: str = ""
    stages: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Exported:
    """How an exported graph is fed and what it returns.

    form: `whole`, one graph from image to rows; `parts`, convolutional graphs with the host between them.
    batch, height, width: what these dimensions of the input must be; 0 for any. Height and width are
        multiples of `preprocess.pad_multiple`.
    image: dtype of the input.
    counted: whether an output `num_detections` follows the four others.
    contract: whose names and layout its inputs and outputs have; what they are, `maskrcnn.backends` says.
    check: what its check against the model found; None where none was made.
    """

    form: Literal["whole", "parts"] = "whole"
    batch: int = 0
    height: int = 0
    width: int = 0
    image: Literal["float32", "uint8"] = "float32"
    counted: bool = False
    contract: Contract = "maskrcnn"
    check: Check | None = None


@dataclass(frozen=True)
class Spec:
    """Everything needed to feed a model and to read what it returns.

    precision: of the stored weights, and of the arithmetic of an exported graph. exported: None for a model
    file of PyTorch.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    preprocess: Preprocess = field(default_factory=Preprocess)
    classes: Classes = field(default_factory=Classes)
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    origin: Origin = field(default_factory=Origin)
    exported: Exported | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """The text that a model file stores under the key `maskrcnn`."""
        return json.dumps(asdict(self), separators=(",", ":"))


def spec_from_json(text: str, place: str | Path) -> Spec:
    """Read a Spec strictly; place names the file. Raises UserError with every fault and its path."""
    from maskrcnn.config_file import read_strictly  # pydantic loads in 0.1 s and only reading needs it

    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{place}: its model description is not JSON ({error})", hint="convert the model again"
        ) from error
    found = values.get("format") if isinstance(values, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise UserError(
            f"{place}: written by a newer version (format {found}, this one reads up to {FORMAT})",
            hint="upgrade with `pip install -U maskrcnn`",
        )
    return read_strictly(Spec, values, place)
