"""Read and write `.safetensors` model files: tensors under our names, and the Spec in the header."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from maskrcnn.errors import UserError
from maskrcnn.spec import Spec, spec_from_json
from maskrcnn.whole_file import whole_file

KEY = "maskrcnn"
LONGEST_HEADER = 100_000_000


def read_spec(path: str | Path) -> Spec:
    """The description in a model file, without its tensors."""
    metadata = read_header(path).get("__metadata__", {})
    if not isinstance(metadata, dict) or KEY not in metadata:
        raise UserError(
            f"{path}: is a safetensors file without a maskrcnn description",
            hint=f"`maskrcnn convert {path} OUT.safetensors` makes a model file of a known checkpoint",
        )
    return spec_from_json(metadata[KEY], path)


def read_header(path: str | Path) -> dict:
    """The JSON header of a safetensors file: names, dtypes and shapes."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(LONGEST_HEADER, os.path.getsize(path) - 8):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
            if not isinstance(header, dict):
                raise ValueError("a header that is no mapping")
            _check_length(header, os.path.getsize(path) - 8 - length)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: is not a safetensors file ({error})", hint="is it the file you meant?"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", hint="check the path") from error
    return header


def _check_length(header: dict, held: int) -> None:
    """Raise ValueError where a file ends before its last tensor; held: bytes behind the header."""
    ends = [
        each["data_offsets"][1]
        for each in header.values()
        if isinstance(each, dict) and isinstance(each.get("data_offsets"), list)
    ]
    if ends and max(ends) > held:
        raise ValueError(f"{held} of {max(ends)} bytes of tensors")


def read_model_file(path: str | Path) -> tuple[Spec, dict[str, np.ndarray]]:
    """The description and the tensors of a model file, floating point as float32."""
    spec = read_spec(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error})", hint="copy or convert it again") from error
    return spec, {name: _as_float32(values) for name, values in tensors.items()}


def write_model_file(path: str | Path, spec: Spec, tensors: Mapping[str, np.ndarray]) -> None:
    """Write under a temporary name and rename; floating point is stored as spec.precision says."""
    if spec.precision == "fp16":
        tensors = {name: _as_float16(values) for name, values in tensors.items()}
    contiguous = {name: np.asarray(values, order="C") for name, values in tensors.items()}
    with whole_file(Path(path)) as temporary:
        # safetensors makes files that only their owner may read; a touched one has the usual mode.
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(contiguous, temporary, {KEY: spec.to_json()})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        temporary.chmod(mode)


def _as_float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _as_float16(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16) if values.dtype.kind == "f" else values
