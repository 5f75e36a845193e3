"""Names the values of a whole graph that its stages compute, so that they can be looked at and compared."""

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# Before the names of `maskrcnn.stages`, in the names of a graph's values.
PREFIX = "stage."
# Where torch notes from which modules, outermost first, and from which operation a node was made.
SCOPES = "pkg.torch.onnx.name_scopes"
TRUNK = ("stem", "res2", "res3", "res4", "res5")
PYRAMID = ("p2", "p3", "p4", "p5", "p6")
HEADS = {"class_logits": "box_head.scores", "box_deltas": "box_head.deltas"}


def name_stages(model: "ModelProto") -> None:
    """Rename values of a graph that torch has just exported; what cannot be found keeps its name."""
    nodes = list(model.graph.node)
    known = _Nodes(nodes)
    names = {value: PREFIX + stage for stage, value in _values(known).items() if value}
    outputs = {value.name for value in model.graph.output}
    _rename(model.graph, {old: new for old, new in names.items() if old not in outputs})


class _Nodes:
    """A graph's nodes by the modules and operations that they were made from."""

    def __init__(self, nodes: Sequence["NodeProto"]) -> None:
        self.nodes = nodes
        self.scopes = [_scopes(node) for node in nodes]

    def within(self, module: str) -> list[list["NodeProto"]]:
        """The nodes of each call of a module, named by the end of its path."""
        calls: list[list[NodeProto]] = []
        inside = False
        for node, scopes in zip(self.nodes, self.scopes, strict=True):
            belongs = any(scope == module or scope.endswith(f".{module}") for scope in scopes)
            if belongs and not inside:
                calls.append([])
            if belongs:
                calls[-1].append(node)
            inside = belongs
        return calls

    def of_operation(self, name: str) -> list[list["NodeProto"]]:
        """The nodes of each use of an operation, in order."""
        uses: dict[str, list[NodeProto]] = {}
        for node, scopes in zip(self.nodes, self.scopes, strict=True):
            last = scopes[-1] if scopes else ""
            if last == name or (last.startswith(f"{name}_") and last[len(name) + 1 :].isdigit()):
                uses.setdefault(last, []).append(node)
        return list(uses.values())


def _scopes(node: "NodeProto") -> list[str]:
    text = next((each.value for each in node.metadata_props if each.key == SCOPES), "[]")
    return [str(scope) for scope in ast.literal_eval(text)]


def _values(nodes: _Nodes) -> dict[str, str]:
    """Stage -> the value that it computes, "" where there is none."""
    values = {stage: _last(nodes.within(f"backbone.{stage}")) for stage in TRUNK}
    first = [node for call in nodes.within("backbone.stem") for node in call if node.op_type == "Conv"]
    values["normalised"] = first[0].input[0] if first else ""
    for number, level in enumerate(PYRAMID[:4], start=2):
        values[level] = _last(nodes.within(f"fpn.joined{number}") or nodes.within(f"fpn.output{number}"))
    values["p6"] = _last(nodes.within("fpn"))
    read = [level for level in PYRAMID if values[level]] or [name for name in TRUNK if values[name]][-1:]
    for stage in ("objectness", "deltas"):
        calls = nodes.within(f"rpn.{stage}")
        if len(calls) == len(read):
            values |= {f"{stage}.{level}": _last([call]) for level, call in zip(read, calls, strict=True)}
    values |= {stage: _last(nodes.within(module)) for stage, module in HEADS.items()}
    return values | _pooled(nodes)


def _pooled(nodes: _Nodes) -> dict[str, str]:
    """The proposals, and what is pooled for boxes and for masks; in a C4 model after its res5."""
    pools = nodes.of_operation("pool_levels")
    if len(pools) != 2:
        return {}
    after = [call for call in nodes.within("res5") if not _in_trunk(call[0])]
    box, mask = after if len(after) == 2 else pools
    return {"proposals": pools[0][0].input[0], "box_pool": _last([box]), "mask_pool": _last([mask])}


def _in_trunk(node: "NodeProto") -> bool:
    return any(scope.endswith("backbone") for scope in _scopes(node))


def _last(calls: Sequence[Sequence["NodeProto"]]) -> str:
    return calls[-1][-1].output[0] if calls else ""


def _rename(graph: "GraphProto", names: Mapping[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)
    for value in graph.output:
        value.name = names.get(value.name, value.name)
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)
