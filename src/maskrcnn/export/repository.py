"""Writes a model into the folder that an inference server reads its models from, checked beforehand."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import maskrcnn
from maskrcnn.errors import UserError
from maskrcnn.export.form import Form, described
from maskrcnn.export.gate import Asked, Gated, Watch, write_checked
from maskrcnn.export.settle import own_folder
from maskrcnn.export.triton_config import triton_config
from maskrcnn.spec import Exported, Origin, Spec
from maskrcnn.stored_spec import stored_spec
from maskrcnn.weights.model_file import read_spec
from maskrcnn.whole_file import disk_errors_told, shown, whole_file

Server = Literal["triton", "ovms"]
# Engine of each: Triton's own OpenVINO cannot be kept from computing in bfloat16 where the processor can.
SUFFIXES: dict[Server, str] = {"triton": ".onnx", "ovms": ".xml"}
CONFIG, LABELS, README, SERVED = "config.pbtxt", "labels.txt", "README.md", "config.json"
REJECTED = ".rejected"
# Spec.precision: what OpenVINO Model Server is to tell OpenVINO to compute in.
ARITHMETIC = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
COMMANDS: dict[Server, str] = {
    "triton": "tritonserver --model-repository {folder}",
    "ovms": "ovms --config_path {folder}/config.json --rest_port 8000",
}


@dataclass(frozen=True)
class Place:
    """Where a model goes: `folder` / `name` / `version`, in the repository of a server."""

    server: Server
    folder: Path
    name: str
    version: int

    @property
    def model(self) -> Path:
        """The folder of all versions."""
        return self.folder / self.name

    @property
    def file(self) -> Path:
        """The graph of this version."""
        return self.model / str(self.version) / f"model{SUFFIXES[self.server]}"


def place_in(folder: Path, server: Server, name: str) -> Place:
    """The next version of a model in a repository, which need not be there. Raises UserError for a folder of
    something else.
    """
    model = folder / name
    if (folder.exists() and not folder.is_dir()) or (model.exists() and not model.is_dir()):
        raise UserError(f"{shown(folder)}: is no model repository", hint="choose another name for OUT")
    versions = _versions(model)
    if model.exists() and not versions:
        raise UserError(
            f"{shown(model)}: is there, and holds no version of a model", hint="use another --name, or OUT"
        )
    if server == "ovms":
        _served(folder / SERVED)
    return Place(server, folder, name, max(versions, default=0) + 1)


def write_repository(
    model: Path,
    place: Place,
    form: Form,
    asked: Asked | None = None,
    watch: Watch = lambda what, done, total: None,
) -> Gated:
    """Write the graph of a `.safetensors` model file, and what the server wants beside it; returns its check.

    `num_detections` is always an output. What differs from the model is kept in a folder beside the
    repository, which stays as it was, as after an error. Raises UserError for what the user must change.
    """
    form = replace(form, counted=True)
    spec = described(read_spec(model), form, model)
    if place.version > 1:
        _refuse_another(place, spec)
    export = _exporter(model, place.server, form)
    with own_folder(place.folder) as folder:
        file = folder / place.file.name
        gated = write_checked(model, file, export, asked, watch)
        if not gated.passed:
            return _kept(gated, folder, place)
        with disk_errors_told(place.folder):
            _settle(folder, place, stored_spec(file))
    return replace(gated, path=place.file)


def _exporter(model: Path, server: Server, form: Form) -> Callable[[Path], object]:
    if server == "triton":
        from maskrcnn.export.onnx import export_onnx

        return lambda file: export_onnx(model, file, form)
    from maskrcnn.export.openvino import export_openvino

    return lambda file: export_openvino(model, file, form)


def _settle(folder: Path, place: Place, spec: Spec) -> None:
    """Move what was made in `folder` to its place; the version of a model there already before its texts."""
    graph = folder / place.file.name
    made = folder / place.name
    version = made / str(place.version)
    version.mkdir(parents=True)
    texts = _texts(place, spec, graph)
    for path in (graph, graph.with_suffix(".bin")):
        if path.exists():
            os.replace(path, version / path.name)
    if place.version == 1:
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")
        place.folder.mkdir(parents=True, exist_ok=True)
        os.rename(made, place.model)
    else:
        os.rename(version, place.model / version.name)
        for name, text in texts.items():
            if not (place.model / name).exists():  # its owner may have changed it
                _write(place.model / name, text)
    if place.server == "ovms":
        _serve(place, spec)


def _texts(place: Place, spec: Spec, graph: Path) -> dict[str, str]:
    labels = spec.classes.names or tuple(f"class_{number}" for number in range(spec.model.classes))
    texts = {LABELS: "".join(f"{label}\n" for label in labels), README: _readme(place)}
    if place.server == "triton":
        texts[CONFIG] = triton_config(place.name, without_history(spec), graph)
    return texts


def _readme(place: Place) -> str:
    """Three lines."""
    command = COMMANDS[place.server].format(folder=shown(place.folder.name))
    call = f'tritonclient.http.InferenceServerClient("localhost:8000").infer("{place.name}", [image, size])'
    return (
        f"Model `{place.name}`, written by maskrcnn {maskrcnn.__version__}; served by `{command}`.\n"
        f"How images are resized, and the classes: `maskrcnn info {place.version}/{place.file.name}`.\n"
        f"Ask it with `{call}`.\n"
    )


def _serve(place: Place, spec: Spec) -> None:
    """Add a model to the list of OpenVINO Model Server, unless it is there; paths are relative to it."""
    values = _served(place.folder / SERVED)
    listed: list[dict[str, Any]] = values["model_config_list"]
    if all(each["config"].get("name") != place.name for each in listed):
        arithmetic = {"INFERENCE_PRECISION_HINT": ARITHMETIC[spec.precision]}
        entry = {"name": place.name, "base_path": place.name, "plugin_config": arithmetic}
        listed.append({"config": entry})
        _write(place.folder / SERVED, json.dumps(values, indent=2) + "\n")


def _served(path: Path) -> dict[str, Any]:
    """The list of models of a repository. Raises UserError for a file of something else."""
    if not path.exists():
        return {"model_config_list": []}
    try:
        values = json.loads(path.read_text("utf-8"))
        for each in values["model_config_list"]:
            each["config"].get("name")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{shown(path)}: is no list of models of OpenVINO Model Server", hint="choose another folder"
        ) from error
    found: dict[str, Any] = values
    return found


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _versions(model: Path) -> list[int]:
    if not model.is_dir():
        return []
    return sorted(int(path.name) for path in model.iterdir() if path.is_dir() and path.name.isdecimal())


def _refuse_another(place: Place, spec: Spec) -> None:
    """A server has one description of all versions of a model."""
    last = place.model / str(place.version - 1) / place.file.name
    found = stored_spec(last)
    if without_history(found) != without_history(spec):
        raise UserError(
            f"{shown(last)}: the version before is fed otherwise, has other classes or is another network",
            hint="use another --name",
        )


def without_history(spec: Spec) -> Spec:
    """What versions of one model have in common: all but where the weights are from, and the check."""
    return replace(spec, origin=Origin(), exported=replace(spec.exported or Exported(), check=None))


def _kept(gated: Gated, folder: Path, place: Place) -> Gated:
    """Move what was rejected to a folder beside the repository."""
    kept = place.folder.with_name(f"{place.folder.name}{REJECTED}")
    with disk_errors_told(kept):
        kept.mkdir(exist_ok=True)
        for path in folder.iterdir():
            os.replace(path, kept / path.name)
    shows = str(kept / Path(gated.shows).name) if gated.shows.startswith(str(folder)) else gated.shows
    return replace(gated, path=kept / gated.path.name, shows=shows)
