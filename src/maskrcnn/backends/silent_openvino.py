"""OpenVINO kept from sending usage statistics, which it does by itself on import and on conversion."""

import sys

# With its telemetry package out of reach OpenVINO falls back to one that does nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

__all__ = ["openvino"]
