"""OpenPPL's module as it was measured to behave, on ONNX Runtime: return codes for errors, and its traps.

It raises AssertionError for what would crash the real one, and ends the process if FAKE_PYPPL_CRASHES is set.
"""

from pyppl import common, nn

__all__ = ["common", "nn"]
