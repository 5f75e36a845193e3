"""Builds an ONNX graph into an engine of TensorRT or IxRT, with our description before its plan."""

from pathlib import Path
from typing import Any

from maskrcnn.backends.tensorrt_api import Api, load_plugins, tensorrt_api
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import engine_header
from maskrcnn.whole_file import shown, whole_file

# Images of an input where their number is free: least, usual and most.
BATCHES = (1, 1, 8)


def build(graph: bytes, spec: Spec, out: Path) -> None:
    """Write the engine of a serialized ONNX graph to `out`, whole or not at all.

    spec: of the graph; its precision is a flag for an engine that does not go by the types of a graph.
    Raises UserError for what this engine cannot build.
    """
    api = tensorrt_api()
    logger = api.module.Logger(api.module.Logger.ERROR)
    load_plugins(api, logger)
    builder = api.module.Builder(logger)
    flags = api.module.NetworkDefinitionCreationFlag
    typed = hasattr(flags, "STRONGLY_TYPED")
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED if typed else flags.EXPLICIT_BATCH))
    parser = api.module.OnnxParser(network, logger)
    if not parser.parse(graph):
        reasons = [parser.get_error(number).desc() for number in range(parser.num_errors)]
        raise _failed(out, api, "; ".join(reasons) or "no reason given")
    config = builder.create_builder_config()
    if not typed and spec.precision != "fp32":
        config.set_flag(getattr(api.module.BuilderFlag, spec.precision.upper()))
    config.add_optimization_profile(_profile(builder, spec))
    plan: Any = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failed(out, api, "the builder gave up")
    with whole_file(out) as temporary, open(temporary, "wb") as file:
        file.write(engine_header(spec))
        file.write(memoryview(plan))


def _profile(builder: Any, spec: Spec) -> Any:
    """The range of shapes of the two inputs."""
    exported, preprocess = spec.exported, spec.preprocess
    assert exported is not None
    multiple = preprocess.pad_multiple
    longest = -(-max(preprocess.short, preprocess.long) // multiple) * multiple
    usual = -(-preprocess.short // multiple) * multiple
    free = (min(64, usual), usual, longest)
    batches = (exported.batch,) * 3 if exported.batch else BATCHES
    heights = (exported.height,) * 3 if exported.height else free
    widths = (exported.width,) * 3 if exported.width else (free[0], longest, longest)
    profile = builder.create_optimization_profile()
    images = [
        (batch, 3, height, width) for batch, height, width in zip(batches, heights, widths, strict=True)
    ]
    profile.set_shape("image", *images)
    profile.set_shape("size", *[(batch, 2) for batch in batches])
    return profile


def _failed(out: Path, api: Api, reason: str) -> UserError:
    other = "an .onnx for ONNX Runtime's TensorRT provider" if api.name == "TensorRT" else "a .parts folder"
    return UserError(
        f"{shown(out)}: {api.words} cannot build it ({reason[:300]})",
        hint=f"use a newer {api.name}, or export {other}",
    )
