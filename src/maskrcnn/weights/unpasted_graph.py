"""Takes the pasting of masks out of a graph of mmdetection, where it is an operator that only mmcv has.

`mmcv:grid_sampler` lays the crops (N, 1, M, M) on the input. Without it and what follows, the output `masks`
is these crops, and ONNX Runtime and OpenVINO know every operator that is left.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from maskrcnn.protobuf import Field, NoMessage, field, fields, head, mapped, parts
from maskrcnn.weights.external_data import external_files
from maskrcnn.whole_file import disk_errors_told, temporary_path

# Numbers of fields, from onnx.proto: of ModelProto, GraphProto, NodeProto and ValueInfoProto.
GRAPH = 7
NODE, OUTPUT = 1, 12
INPUTS, OUTPUTS, NAME, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 3, 4, 5, 7
VALUE_NAME = 1
# Of AttributeProto: a graph in it, and several.
INNER = (6, 11)
PASTING = (b"mmcv", b"grid_sampler")
MASKS = b"masks"
# TypeProto of a float tensor of four sides, without their lengths.
FLOATS = field(1, b"\x08\x01" + field(2, 4 * field(1, b"")))


@dataclass(frozen=True)
class _Node:
    """place: of its field in the graph."""

    place: Field
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]
    kind: tuple[bytes, bytes]


def unpasted_graph(path: Path) -> bytes | None:
    """The file without it; None where it has none, or another output than `masks` needs it, or cannot
    be read."""
    try:
        model = mapped(path)
        graph = next(parts(model, GRAPH), None)
        made = None if graph is None else _without(graph)
        if made is None:
            return None
        before, after = _around(model)
        return b"".join([before, head(GRAPH, len(made)), made, after])
    except (NoMessage, OSError):
        return None


@contextmanager
def without_pasting(path: Path) -> Iterator[Path]:
    """The graph as engines without mmcv run it: the file itself, or one that is gone afterwards."""
    contents = unpasted_graph(path) if path.suffix.lower() == ".onnx" else None
    if contents is None:
        yield path
        return
    with ExitStack() as files:
        if external_files(memoryview(contents)):
            # Weights outside a graph are looked for from its folder on.
            made = temporary_path(path).with_suffix(".onnx")
            files.callback(made.unlink, missing_ok=True)
        else:
            made = Path(files.enter_context(TemporaryDirectory(prefix="maskrcnn-"))) / path.name
        with disk_errors_told(made):
            made.write_bytes(contents)
        yield made


def _around(model: memoryview) -> tuple[bytes, bytes]:
    place = next(each for each in fields(model) if each.number == GRAPH)
    return bytes(model[: place.start]), bytes(model[place.end :])


def _without(graph: memoryview) -> bytes | None:
    every = list(fields(graph))
    nodes = [_node(each) for each in every if each.number == NODE]
    pasting = [node for node in nodes if node.kind == PASTING]
    named = [each for each in every if each.number == OUTPUT]
    if len(pasting) != 1 or MASKS not in map(_value_name, named):
        return None
    crops = pasting[0].inputs[0]
    needed = _needed(nodes, {*map(_value_name, named), crops} - {MASKS})
    if pasting[0].place.start in needed:
        return None
    pieces = [
        bytes(graph[each.start : each.end])
        for each in every
        if not (each.number == NODE and each.start not in needed)
        and not (each.number == OUTPUT and _value_name(each) == MASKS)
    ]
    same = field(INPUTS, crops) + field(OUTPUTS, MASKS) + field(NAME, b"crops") + field(OP_TYPE, b"Identity")
    masks = field(VALUE_NAME, MASKS) + field(2, FLOATS)
    return b"".join([*pieces, field(NODE, same), field(OUTPUT, masks)])


def _node(place: Field) -> _Node:
    message = _bytes(place)
    names: dict[int, list[bytes]] = {INPUTS: [], OUTPUTS: [], OP_TYPE: [], DOMAIN: []}
    inner: list[bytes] = []
    for each in fields(message):
        if each.number in names:
            names[each.number].append(bytes(_bytes(each)))
        elif each.number == ATTRIBUTE:
            inner += _names_inside(_bytes(each))
    kind = (b"".join(names[DOMAIN]), b"".join(names[OP_TYPE]))
    return _Node(place, (*names[INPUTS], *inner), tuple(names[OUTPUTS]), kind)


def _names_inside(attribute: memoryview) -> Iterator[bytes]:
    """What branches and bodies of loops read, which may be values around them; and what they return."""
    for number in INNER:
        for graph in parts(attribute, number):
            for node in fields(graph):
                if node.number == NODE:
                    yield from _node(node).inputs
                elif node.number == OUTPUT:
                    yield _value_name(node)


def _needed(nodes: list[_Node], names: set[bytes]) -> set[int]:
    """Where the nodes begin that these values are computed by. Nodes come after those that they read."""
    found = set()
    for node in reversed(nodes):
        if names.intersection(node.outputs):
            found.add(node.place.start)
            names |= {*node.inputs}
    return found


def _value_name(place: Field) -> bytes:
    return bytes(next(parts(_bytes(place), VALUE_NAME), memoryview(b"")))


def _bytes(place: Field) -> memoryview:
    if isinstance(place.value, int):
        raise NoMessage("a number stands where a message should")
    return place.value
