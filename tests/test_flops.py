"""The counted operations are those of the published network, and of torch's own counter."""

import pytest

from maskrcnn.config import AnchorConfig, BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig
from maskrcnn.flops import Stage, count_stages

torch = pytest.importorskip("torch")


def network(config: ModelConfig):  # type: ignore[no-untyped-def]  # a MaskRCNN without numbers
    """The network on torch's device without memory."""
    from maskrcnn.model.mask_rcnn import MaskRCNN

    with torch.device("meta"):
        return MaskRCNN(config)


def stages_of(
    config: ModelConfig, size: tuple[int, int], proposals: int, detections: int
) -> dict[str, Stage]:
    """The count by stage name."""
    shapes = {name: tuple(values.shape) for name, values in network(config).state_dict().items()}
    return {stage.name: stage for stage in count_stages(config, shapes, size, proposals, detections)}


def test_torchvision_s_r50_fpn_at_800_by_1216_has_447_gflop() -> None:
    """Counted independently by hooks on torchvision's model, with 91 outputs and 50 detections."""
    stages = stages_of(ModelConfig(classes=91), (800, 1216), proposals=1000, detections=50)
    counted = {name: round(stage.gflops, 1) for name, stage in stages.items()}
    assert counted == {"backbone": 158.5, "fpn": 110.2, "rpn": 96.2, "box_head": 28.7, "mask_head": 53.2}


def test_parameters_are_those_of_the_modules() -> None:
    config = ModelConfig(backbone=BackboneConfig(norm="bn"))
    stages = stages_of(config, (320, 320), 1, 1)
    model = network(config)
    for name, stage in stages.items():
        assert stage.parameters == sum(each.numel() for each in model.get_submodule(name).parameters())


ONE_LEVEL = AnchorConfig(sizes=((32.0, 64.0, 128.0, 256.0, 512.0),))
CONFIGS = {
    "basic blocks": ModelConfig(backbone=BackboneConfig(depth=18)),
    "stride in 1x1": ModelConfig(backbone=BackboneConfig(stride_in_1x1=True)),
    "ResNeXt": ModelConfig(backbone=BackboneConfig(groups=32, group_width=4)),
    "C4": ModelConfig(
        neck="c4",
        anchors=ONE_LEVEL,
        box_head=BoxHeadConfig(kind="res5", pool_side=14),
        mask_head=MaskHeadConfig(convs=0, pool_side=14),
    ),
    "DC5": ModelConfig(neck="dc5", anchors=ONE_LEVEL),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_trunk_and_the_pyramid_have_what_torch_counts(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = CONFIGS[name]
    model = network(config).eval()
    stages = stages_of(config, (320, 416), 1000, 100)
    image = torch.zeros(1, 3, 320, 416, device="meta")
    with FlopCounterMode(display=False) as counter:
        levels = model.backbone(image)
    assert stages["backbone"].gflops == pytest.approx(counter.get_total_flops() / 1e9)
    if model.fpn is not None:
        with FlopCounterMode(display=False) as counter:
            levels = model.fpn(levels)
        assert stages["fpn"].gflops == pytest.approx(counter.get_total_flops() / 1e9)
    with FlopCounterMode(display=False) as counter:
        model.rpn.predict(levels if model.fpn is not None else levels[-1:])
    assert stages["rpn"].gflops == pytest.approx(counter.get_total_flops() / 1e9)


def test_c4_runs_res5_on_every_proposal() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = CONFIGS["C4"]
    model = network(config).eval()
    with FlopCounterMode(display=False) as counter:
        model.box_head.predict(model.res5(torch.zeros(10, 1024, 14, 14, device="meta")))
    stages = stages_of(config, (320, 416), proposals=10, detections=0)
    assert stages["box_head"].gflops == pytest.approx(counter.get_total_flops() / 1e9)
