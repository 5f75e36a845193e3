"""The configuration with which Ascend's compiler puts normalisation into a model, which takes bytes then.

From its ATC guide: "Configuration File Template", "Normalization Configuration" and "RGB888_U8 to RGB".
"""

from maskrcnn.spec import Spec


def aipp_config(spec: Spec) -> str:
    """What `atc --insert_op_conf` reads, for bins of bytes of an exported model: RGB pixels (H, W, 3).

    A pixel becomes (pixel - mean_chn - min_chn) * var_reci_chn, after red and blue changed places if the
    network takes BGR. mean_chn is a whole number, min_chn is not.
    """
    assert spec.exported is not None
    entries: list[tuple[str, object]] = [
        ("aipp_mode", "static"),
        ("related_input_rank", 0),
        ("input_format", "RGB888_U8"),
        ("src_image_size_w", spec.exported.width),
        ("src_image_size_h", spec.exported.height),
        ("crop", "false"),
        ("csc_switch", "false"),
        ("rbuv_swap_switch", str(spec.preprocess.channels == "bgr").lower()),
    ]
    entries += [(f"mean_chn_{channel}", 0) for channel in range(3)]
    entries += [(f"min_chn_{channel}", mean) for channel, mean in enumerate(spec.model.mean)]
    entries += [(f"var_reci_chn_{channel}", f"{1 / std:.12g}") for channel, std in enumerate(spec.model.std)]
    lines = "".join(f"    {name}: {value}\n" for name, value in entries)
    return f"aipp_op {{\n{lines}}}\n"
