"""What stands for no score in exported graphs survives engines that compute in fewer bits than float32."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")


def test_the_value_below_every_score_is_the_same_in_every_arithmetic() -> None:
    """OpenVINO rounds one side of `score > LOWEST` to bfloat16, and suppressed boxes would come back."""
    from maskrcnn.export.onnx_ops import LOWEST

    assert [float(torch.tensor(LOWEST).to(each)) for each in (torch.bfloat16, torch.float16)] == [LOWEST] * 2
