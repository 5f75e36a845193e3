"""`maskrcnn info`: what a model file says of itself, and what it costs to run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrcnn.cli.network import Offline

if TYPE_CHECKING:
    from maskrcnn.config import ModelConfig
    from maskrcnn.flops import LayerCost, Stage
    from maskrcnn.spec import Exported, Spec

# height, width: 3:2 is the shape of most photographs; 800 x 1216 after the usual resizing and padding.
PHOTOGRAPH = (2000, 3000)
FLOPS = "Show the output, parameters and operations of each layer as well."


@dataclass(frozen=True)
class Description:
    """One model file. size_net: (height, width) that the operations are counted for, padding included.

    bytes, sha256: of the file, or of its files one after the other, in the order of their names.
    layers: of the stages, in their order.
    """

    file: str
    bytes: int
    sha256: str
    spec: "Spec"
    size_net: tuple[int, int]
    stages: "list[Stage]"
    layers: "list[LayerCost]"

    def to_json(self, layers: bool = False) -> dict[str, Any]:
        """Plain values of everything, layers when asked."""
        return {
            "file": self.file,
            "bytes": self.bytes,
            "sha256": self.sha256,
            **asdict(self.spec),
            "parameters": sum(stage.parameters for stage in self.stages),
            "input_size": list(self.size_net),
            "stages": [asdict(stage) for stage in self.stages],
            **({"layers": [asdict(layer) for layer in self.layers]} if layers else {}),
        }


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model file, `example`, or zoo:NAME.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    flops: Annotated[bool, typer.Option("--flops", help=FLOPS)] = False,
    offline: Offline = False,
) -> None:
    """Show a model's source, input, size, cost and conventions."""
    import json

    description = describe(model)
    print(
        json.dumps(description.to_json(flops), indent=2) if as_json else "\n".join(lines(description, flops))
    )


def describe(model: str) -> Description:
    """Read a model file's description; an engine is needed only for a graph of another tool without one."""
    from maskrcnn.flops import count_layers, count_stages
    from maskrcnn.predict import model_path, open_model
    from maskrcnn.preprocess import padded_size, resized_size
    from maskrcnn.stored_spec import found_spec

    path = model_path(model)
    # What says nothing of itself is opened, as a graph of another tool that is known by its names.
    spec = found_spec(path) or open_model(path, device="cpu").spec
    files = _files(path)
    height, width = padded_size(resized_size(PHOTOGRAPH, spec.preprocess), spec.preprocess)
    counted = (height, width), spec.model.rpn.post_nms, spec.model.box_head.detections
    shapes = _shapes(path, spec)
    return Description(
        file=str(path),
        bytes=sum(file.stat().st_size for file in files),
        sha256=_sha256(files),
        spec=spec,
        size_net=(height, width),
        stages=[] if of_another_tool(spec) else count_stages(spec.model, shapes, *counted),
        layers=[] if of_another_tool(spec) else count_layers(spec.model, shapes, *counted),
    )


def of_another_tool(spec: "Spec") -> bool:
    """Whether it describes a graph that another tool made, whose layers it does not know."""
    exported = spec.exported
    return exported is not None and exported.contract != "maskrcnn" and exported.check is None


def _files(path: Path) -> list[Path]:
    """What belongs to a model: OpenVINO keeps the weights beside the graph, parts are a folder."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    return [path.with_suffix(".bin"), path] if path.suffix.lower() == ".xml" else [path]


def _sha256(files: list[Path]) -> str:
    import hashlib

    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _shapes(path: Path, spec: "Spec") -> dict[str, tuple[int, ...]]:
    """Of the model's tensors by name: as they are stored, or, in a graph, as its description has them."""
    if path.suffix.lower() == ".safetensors":
        from maskrcnn.weights.model_file import read_header

        return {name: tuple(entry["shape"]) for name, entry in read_header(path).items() if "shape" in entry}
    from maskrcnn.weights.architecture import parameter_shapes

    return dict(parameter_shapes(spec.model))


def lines(description: Description, layers: bool = False) -> list[str]:
    """The description for a person, with a row for each layer when asked."""
    spec, foreign = description.spec, of_another_tool(description.spec)
    rows = [
        ("file", f"{description.file}, {description.bytes / 1e6:.1f} MB, sha256 {description.sha256}"),
        ("source", source(spec)),
        ("network", f"of {spec.origin.source}" if foreign else network(spec.model)),
        ("classes", classes(spec)),
        ("input", resizing(spec)),
        ("", f"mean {_numbers(spec.model.mean)}, std {_numbers(spec.model.std)}, of 0..255"),
        ("precision", spec.precision),
        *(_exported(spec.exported, spec.preprocess.pad_multiple) if spec.exported else ()),
        *(() if foreign else _costs(description)),
        *(_layers(description) if layers and not foreign else ()),
        *(() if foreign else _conventions(spec.model)),
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
        "letterbox": f"centred in {rule.short} x {rule.long}, filled with {_colour(rule.fill)}",
        "stretch": f"stretched to {rule.short} x {rule.long}",
    }[rule.resize]
    padding = f"padded to {rule.pad_multiple}" if rule.pad_multiple > 1 else "not padded"
    if rule.resize == "fit_window" and rule.pad_to_window:
        padding = f"padded to {rule.short} x {rule.long}"
    return f"{size} ({rule.size_rule} rounding), {rule.filter} filter, {rule.channels.upper()}, {padding}"


def _colour(fill: tuple[float, float, float]) -> str:
    """Of a letterbox, in the network's order of channels."""
    values = fill if len(set(fill)) > 1 else fill[:1]
    return ", ".join(f"{value:g}" for value in values)


def _exported(exported: "Exported", multiple: int) -> list[tuple[str, str]]:
    """What an exported graph takes, and what its check found."""
    form = {"whole": "one graph", "parts": "three graphs, the rest on the host"}[exported.form]
    count = str(exported.batch or "any number of")
    images = f"{count} image{'s' * (exported.batch != 1)} at once"
    sides = [str(side or f"multiple of {multiple}") for side in (exported.height, exported.width)]
    rows = [("exported", f"{form}, {images}, {' x '.join(sides)} pixels, {exported.image}")]
    check = exported.check
    if check is None:
        return [*rows, ("", "not checked against its model")]
    where = check.on or f"{check.images} images"
    found = f"{check.matched} of {check.matched + check.missed} detections in {where}"
    figures = f"boxes within {check.box_px:.2g} px, scores within {check.score:.2g}"
    rows.append(("", f"checked: {found}, {figures}, masks agree on {100 * check.mask_pixels:.5g} %"))
    for name, before, after in check.precision:
        rows.append(("", f"{name} {100 * before:.1f} -> {100 * after:.1f}"))
    if check.stages:
        shares = ", ".join(f"{name} {share:.2g}" for name, share in check.stages)
        rows.append(("", f"stages, as shares of their largest values: {shares}"))
    return rows


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


def _layers(description: Description) -> list[tuple[str, str]]:
    """A row a layer; the share is of all operations."""
    total = sum(layer.gflops for layer in description.layers)
    names, outputs = (
        [layer.name for layer in description.layers],
        [_output(each) for each in description.layers],
    )
    wide, long = max(map(len, names)), max(map(len, outputs))
    rows = [f"{'name':<{wide}}  {'output':<{long}}  {'parameters':>10}  {'GFLOP':>8}   share"]
    rows += [
        f"{name:<{wide}}  {output:<{long}}  {layer.parameters:>10,}  {layer.gflops:8.3f}"
        f"  {layer.gflops / total:6.2%}"
        for name, output, layer in zip(names, outputs, description.layers, strict=True)
    ]
    return [(title, row) for title, row in zip(["layers", *[""] * len(rows)], rows, strict=False)]


def _output(layer: "LayerCost") -> str:
    """`256 x 200 x 304`, and how many smaller ones where it sees more levels than one."""
    more = f" + {len(layer.outputs) - 1} smaller" if len(layer.outputs) > 1 else ""
    return " x ".join(map(str, layer.outputs[0])) + more


def _conventions(config: "ModelConfig") -> list[tuple[str, str]]:
    values = asdict(config.conventions).items()
    titles = ["conventions", *[""] * (len(values) - 1)]
    return [(title, f"{name:<19} {value}") for title, (name, value) in zip(titles, values, strict=True)]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
