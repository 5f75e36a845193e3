"""Numbers of return codes and log levels, and what the codes are called."""

from typing import Any

LOG_LEVEL_ERROR = 3
DATATYPE_UINT8, DATATYPE_FLOAT16, DATATYPE_FLOAT32, DATATYPE_FLOAT64 = 1, 5, 6, 7
DATATYPE_INT32, DATATYPE_INT64, DATATYPE_BOOL = 12, 13, 14
RC_SUCCESS, RC_OTHER_ERROR, RC_UNSUPPORTED, RC_INVALID_VALUE, RC_DEVICE_NOT_SET = 0, 1, 2, 4, 7
NAMES = (
    *("success", "other error", "unsupported", "out of memory", "invalid value", "already exists"),
    *("not found", "permission denied", "host memory", "device memory", "device runtime"),
    *("out of range", "internal error"),
)
# What was called, in order.
CALLS: list[tuple[Any, ...]] = []


def GetRetCodeStr(code: int) -> str:  # noqa: N802
    """Undefined for numbers that it does not have."""
    assert 0 <= code < len(NAMES), "reads beyond the table"
    return NAMES[code]
