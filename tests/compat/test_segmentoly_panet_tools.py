"""segmentoly's tools with the class of its PANet."""

from pathlib import Path

from maskrcnn.compat import segmentoly_train as train
from maskrcnn.compat.segmentoly_convert import NETWORKS, read_arguments
from maskrcnn.presets import ARCHITECTURES
from maskrcnn.weights.architecture import name_of

CLASS = "segmentoly.rcnn.model_zoo.resnet_panet_mask_rcnn.ResNeXt101PANetMaskRCNN"


def test_the_training_of_its_page_is_one_of_ours() -> None:
    """The command of OpenVINO.md for model 0010."""
    words = (
        "--dataset coco2017 --max_image_size 800 1333 --bs 16 --bs_per_gpu 1 --lr 0.02 --max_iter 180000 "
        f"--drop_lr 120000 160000 --model {CLASS} "
        "--load_backbone data/pretrained_models/converted/imagenet/detectron/resnext101.pth"
    )
    found = train.command(train.read_arguments(words.split()), Path("out"))
    assert found[found.index("--model") + 1] == "scratch:segmentoly/x101-32x8d-panet"
    assert found[found.index("--steps") + 1] == "180000"
    assert "training.milestones=[0.666666667, 0.888888889]" in found
    assert "trunk=out/trunk.pt" in found


def test_its_converter_knows_the_class_by_the_name_of_our_architecture() -> None:
    words = f"--model {CLASS} --ckpt 0010.pth --input_size 800 1344 -nc 81 --output_file 0010.xml"
    asked = read_arguments(words.split())
    assert NETWORKS[asked.model] == name_of(ARCHITECTURES["x101-32x8d-panet"])
