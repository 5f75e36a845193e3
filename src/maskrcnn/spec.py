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
    pad_value: what a letterbox is filled with, 0..255; other padding is zero after normalisation.
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
    pad_value: float = 0.0


@dataclass(frozen=True)
class Origin:
    """Where the weights came from. sha256: of the file that was read, "" for a model trained here."""

    source: str = "maskrcnn"
    file: str = ""
    sha256: str = ""
    tool_version: str = ""


@dataclass(frozen=True)
class Spec:
    """Everything needed to feed a model and to read what it returns. precision: of the stored weights."""

    model: ModelConfig = field(default_factory=ModelConfig)
    preprocess: Preprocess = field(default_factory=Preprocess)
    classes: Classes = field(default_factory=Classes)
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    origin: Origin = field(default_factory=Origin)
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
