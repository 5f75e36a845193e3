"""`maskrcnn info`: what a model file says of itself, and what it costs to run."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrcnn.cli.network import Offline

if TYPE_CHECKING:
    from maskrcnn.config import ModelConfig
    from maskrcnn.flops import Stage
    from maskrcnn.spec import Spec

# height, width: 3:2 is the shape of most photographs; 800 x 1216 after the usual resizing and padding.
PHOTOGRAPH = (2000, 3000)


@dataclass(frozen=True)
class Description:
    """One model file. size_net: (height, width) that the operations are counted for, padding included."""

    file: str
    bytes: int
    sha256: str
    spec: "Spec"
    size_net: tuple[int, int]
    stages: "list[Stage]"

    def to_json(self) -> dict[str, Any]:
        """Plain values of everything."""
        return {
            "file": self.file,
            "bytes": self.bytes,
            "sha256": self.sha256,
            **asdict(self.spec),
            "parameters": sum(stage.parameters for stage in self.stages),
            "input_size": list(self.size_net),
            "stages": [asdict(stage) for stage in self.stages],
        }


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model file, `example`, or zoo:NAME.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    offline: Offline = False,
) -> None:
    """Show a model's source, input, size, cost and conventions."""
    import json

    description = describe(model)
    print(json.dumps(description.to_json(), indent=2) if as_json else "\n".join(lines(description)))


def describe(model: str) -> Description:
    """Read a model file's header; PyTorch is not needed."""
    import hashlib

    from maskrcnn.flops import count_stages
    from maskrcnn.predict import model_path
    from maskrcnn.preprocess import padded_size, resized_size
    from maskrcnn.weights.model_file import read_header, read_spec

    path = model_path(model)
    spec = read_spec(path)
    shapes = {name: tuple(entry["shape"]) for name, entry in read_header(path).items() if "shape" in entry}
    height, width = padded_size(resized_size(PHOTOGRAPH, spec.preprocess), spec.preprocess)
    proposals, detections = spec.model.rpn.post_nms, spec.model.box_head.detections
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Description(
        file=str(path),
        bytes=path.stat().st_size,
        sha256=sha256,
        spec=spec,
        size_net=(height, width),
        stages=count_stages(spec.model, shapes, (height, width), proposals, detections),
    )


def lines(description: Description) -> list[str]:
    """The description for a person."""
    spec = description.spec
    rows = [
        ("file", f"{description.file}, {description.bytes / 1e6:.1f} MB, sha256 {description.sha256}"),
        ("source", source(spec)),
        ("network", network(spec.model)),
        ("classes", classes(spec)),
        ("input", resizing(spec)),
        ("", f"mean {_numbers(spec.model.mean)}, std {_numbers(spec.model.std)}, of 0..255"),
        ("precision", spec.precision),
        *_costs(description),
        *_conventions(spec.model),
    ]
    return [f"{title:<12}{text}" for title, text in rows]


def source(spec: "Spec") -> str:
    """`detectron2, model_final_f10217.pkl, sha256 f10217...`."""
    origin = spec.origin
    sha256 = f"sha256 {origin.sha256}" if origin.sha256 else ""
    made = f"made by maskrcnn {origin.tool_version}" if origin.tool_version else ""
    return ", ".join(part for part in (origin.source, origin.file, sha256, made) if part)


def network(config: "ModelConfig") -> str:
    """`ResNet-50, FPN of 256 channels, box head of 2 linear layers, mask head of 4 convolutions, ...`."""
    trunk, box, mask = config.backbone, config.box_head, config.mask_head
    kind = "ResNet-{depth}" if trunk.groups == 1 else "ResNeXt-{depth} {groups}x{width}d"
    parts = [kind.format(depth=trunk.depth, groups=trunk.groups, width=trunk.group_width)]
    parts.append(f"FPN of {config.fpn.channels} channels" if config.neck == "fpn" else config.neck.upper())
    if box.kind == "res5":
        parts.append("box head res5")
    else:
        convs = f"{box.convs} convolutions and " if box.convs else ""
        parts.append(f"box head of {convs}{box.fcs} linear layer{'s' * (box.fcs != 1)}")
    parts.append(f"mask head of {mask.convs} convolutions" if mask.convs else "mask head on res5")
    return ", ".join([*parts, f"norm {trunk.norm}", f"{config.classes} classes"])


def classes(spec: "Spec") -> str:
    """How many classes have names, and the first ones."""
    names = [name for name in spec.classes.names if name]
    if not names:
        return f"{spec.model.classes}, without names"
    more = ", ..." if len(names) > 8 else ""
    return f"{len(names)}: {', '.join(names[:8])}{more}"


def resizing(spec: "Spec") -> str:
    """How an image becomes the network's input."""
    rule = spec.preprocess
    size = {
        "shortest_edge": f"short side {rule.short}, long side at most {rule.long}",
        "fit_window": f"fitted into {rule.short} x {rule.long}",
        "letterbox": f"centred in {rule.short} x {rule.long}, filled with {rule.pad_value:g}",
        "stretch": f"stretched to {rule.short} x {rule.long}",
    }[rule.resize]
    padding = f"padded to {rule.pad_multiple}" if rule.pad_multiple > 1 else "not padded"
    if rule.resize == "fit_window" and rule.pad_to_window:
        padding = f"padded to {rule.short} x {rule.long}"
    return f"{size} ({rule.size_rule} rounding), {rule.filter} filter, {rule.channels.upper()}, {padding}"


def _costs(description: Description) -> list[tuple[str, str]]:
    config, stages = description.spec.model, description.stages
    height, width = description.size_net
    proposals, detections = config.rpn.post_nms, config.box_head.detections
    rows = [("cost", f"of {height} x {width} pixels, {proposals} proposals, {detections} detections")]
    rows += [
        ("", f"{s.name:<10} {s.parameters / 1e6:7.2f} M parameters {s.gflops:8.1f} GFLOP") for s in stages
    ]
    total, gflops = sum(s.parameters for s in stages), sum(s.gflops for s in stages)
    return [*rows, ("", f"{'all':<10} {total / 1e6:7.2f} M parameters {gflops:8.1f} GFLOP")]


def _conventions(config: "ModelConfig") -> list[tuple[str, str]]:
    values = asdict(config.conventions).items()
    titles = ["conventions", *[""] * (len(values) - 1)]
    return [(title, f"{name:<19} {value}") for title, (name, value) in zip(titles, values, strict=True)]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
