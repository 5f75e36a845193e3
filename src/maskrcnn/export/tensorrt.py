"""Writes a model file as an engine of TensorRT or IxRT, which runs on the kind of GPU it was made on."""

from pathlib import Path
from typing import Any

from maskrcnn.backends.tensorrt_api import Api, load_plugins, tensorrt_api
from maskrcnn.errors import UserError
from maskrcnn.export.form import Form
from maskrcnn.export.onnx import onnx_graph
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import engine_header
from maskrcnn.whole_file import shown, whole_file

# Images of an input where their number is free: least, usual and most.
BATCHES = (1, 1, 8)


def export_tensorrt(model_file: str | Path, out: str | Path, form: Form | None = None) -> Spec:
    """Build the engine of a `.safetensors` model file into `out`, whole or not at all; returns its Spec.

    Inputs and outputs are those of `export_onnx`; types are those of its graph, so that boxes stay float32,
    or, where an engine does not go by them (IxRT), what it chooses of float32 and the form's precision. A
    free height and width may be anything up to the longest side that the preprocessing gives.
    Raises UserError for a wrong file or form, and for what this engine cannot build.
    """
    api = tensorrt_api()
    out, form = Path(out), form or Form()
    spec, graph = onnx_graph(model_file, form)
    logger = api.module.Logger(api.module.Logger.ERROR)
    load_plugins(api, logger)
    builder = api.module.Builder(logger)
    flags = api.module.NetworkDefinitionCreationFlag
    typed = hasattr(flags, "STRONGLY_TYPED")
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED if typed else flags.EXPLICIT_BATCH))
    parser = api.module.OnnxParser(network, logger)
    if not parser.parse(graph.SerializeToString()):
        reasons = [parser.get_error(number).desc() for number in range(parser.num_errors)]
        raise _failed(out, api, "; ".join(reasons) or "no reason given")
    config = builder.create_builder_config()
    if not typed and form.precision != "fp32":
        config.set_flag(getattr(api.module.BuilderFlag, form.precision.upper()))
    config.add_optimization_profile(_profile(builder, spec))
    plan: Any = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failed(out, api, "the builder gave up")
    with whole_file(out) as temporary, open(temporary, "wb") as file:
        file.write(engine_header(spec))
        file.write(memoryview(plan))
    return spec


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
