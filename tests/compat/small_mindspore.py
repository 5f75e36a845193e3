"""A network of mindspore-lab's architecture that learns in a second, and configuration files as theirs."""

import runpy
from dataclasses import replace
from pathlib import Path

import torch

from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Classes, Spec
from maskrcnn.training.initial import initialise, starting
from maskrcnn.training.processes import Processes
from maskrcnn.training.recipe import Training
from maskrcnn.training.update import Run, start

SIDES = {"width": 8, "channels": 16, "fc": 32, "classes": 2}
TRAINING = Training(
    epochs=4,
    batch=2,
    base_batch=0,
    learning_rate=0.01,
    schedule="steps",
    milestones=(0.5, 0.75),
    warm_up=1,
    weight_decay=5e-5,
    average=0,
    precision="fp32",
)


def small_spec() -> Spec:
    """R18-FPN of width 8, as `scratch:mindspore` describes the rest."""
    spec, _ = starting("scratch:mindspore")
    channels = SIDES["channels"]
    model = replace(
        spec.model,
        classes=SIDES["classes"],
        backbone=replace(spec.model.backbone, depth=18, width=SIDES["width"]),
        fpn=replace(spec.model.fpn, channels=channels),
        box_head=replace(spec.model.box_head, fc_channels=SIDES["fc"]),
        mask_head=replace(spec.model.mask_head, channels=channels),
    )
    return replace(spec, model=model, classes=Classes(("bright", "dark"), (3, 7)))


def learning(spec: Spec, steps: int) -> tuple[Run, Training]:
    """A run after some updates with random gradients, so that no weight, statistic or momentum is zero."""
    torch.manual_seed(steps)
    model = MaskRCNN(spec.model)
    initialise(model)
    for name, values in model.state_dict().items():
        if name.endswith(("running_mean", "norm.bias")):
            values.normal_(0, 0.1)
        if name.endswith(("running_var", "norm.weight")):
            values.uniform_(0.5, 1.5)
    run = start(model, TRAINING, torch.device("cpu"), Processes())
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) * 0.01
        run.optimizer.step()
    return run, TRAINING


COCO = """
data:
  dataset_name: shapes
  dataset_dir: coco
  train_img_dir: train
  train_anno_path: annotations/instances_train.json
  val_img_dir: val
  val_anno_path: annotations/instances_val.json
  test_img_dir: test
  test_anno_path: annotations/instances_test.json
  nc: 2
  names: [bright, dark]
  detection_require_poly: True
"""
IMAGES = """
__BASE__: [../coco.yml]
data:
  is_segment: True
  seg_size: 28
  num_parallel_workers: 1
  train_transforms:
    item_transforms:
      - RandomFlip: {prob: 0.25}
      - Resize: {target_size: [96, 160], keep_ratio: True}
      - NormalizeImage: {is_scale: False, norm_type: mean_std, mean: [120, 110, 100], std: [50, 60, 70]}
      - TransposeImage: {hwc2chw: True, bgr2rgb: True}
      - LabelsPadding: {padding_size: 160, padding_value: -1}
  eval_transforms:
    item_transforms:
      - Resize: {target_size: [96, 160], keep_ratio: True}
      - NormalizeImage: {is_scale: True, norm_type: mean_std, mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4]}
      - TransposeImage: {hwc2chw: True}
      - LabelsPadding: {padding_size: 160, padding_value: -1}
"""
OPTIMIZER = """
optimizer: {type: momentum, weight_decay: 0.00005, momentum: 0.9, nesterov: False, filter_bias_and_bn: True}
lr: {warmup_step: 500, warmup_ratio: 0001, decay_rate: 0.1, milestones: [8, 11]}
epochs: 12
"""
INFERENCE = """
infer:
  conf_threshold: 0.05
  nms_threshold: 0.5
  max_box_num: 100
  predict_box_format: xyxy
  eval_parallel: True
  with_postprocess: True
"""
NETWORK = """
net: MaskRCNN
backbone:
  name: det_resnet18
  pretrained: True
  in_channels: [64, 128, 256, 512]
  out_channels: 16
  frozen_2stage: True
  frozen_bn: False
  frozen: False
  fpn: {num_outs: 5, level_index: [0, 1, 2, 3], norm: none, act: none, upsample_mode: bilinear}
rpn_head:
  feat_channel: 16
  anchor_generator:
    aspect_ratios: [0.5, 1.0, 2.0]
    anchor_sizes: [[16], [32], [64], [128], [256]]
    strides: [4, 8, 16, 32, 64]
  rpn_label_assignment:
    rnp_sample_batch: 64
    fg_fraction: 0.5
    negative_overlap: 0.3
    positive_overlap: 0.7
    use_random: True
  train_proposal: {min_size: 1.0, nms_thresh: 0.7, pre_nms_top_n: 200, post_nms_top_n: 60}
  test_proposal: {min_size: 1.0, nms_thresh: 0.7, pre_nms_top_n: 100, post_nms_top_n: 50}
bbox_head:
  resolution: 7
  bbox_loss: None
  add_gt_as_proposals: True
  head: {name: RCNNBBoxTwoFCHead, in_channel: 16, out_channel: 32}
  roi_extractor: {featmap_strides: [4, 8, 16, 32]}
  bbox_assigner: {name: BBoxAssigner, rois_per_batch: 32, bg_thresh: 0.5, fg_thresh: 0.5, fg_fraction: 0.25}
mask_head:
  resolution: 14
  mask_shape: [28, 28]
  head: {in_channel: 16, out_channel: 16, num_convs: 4}
  roi_extractor: {featmap_strides: [4, 8, 16, 32]}
"""
FULL = "__BASE__: [data.yml, ../optimizer_1x.yml, network.yml, ../inference.yml]\n"


def write_configs(folder: Path) -> Path:
    """Six files that stand to each other as theirs do, with a word of every key; -> the one to name."""
    texts = {
        "coco.yml": COCO,
        "optimizer_1x.yml": OPTIMIZER,
        "inference.yml": INFERENCE,
        "maskrcnn/data.yml": IMAGES,
        "maskrcnn/network.yml": NETWORK,
        "maskrcnn/full.yml": FULL,
    }
    (folder / "maskrcnn").mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "maskrcnn" / "full.yml"


def write_shapes(folder: Path) -> None:
    """Six drawn pictures to learn from and two to evaluate on, below a folder `annotation`."""
    draw = runpy.run_path(str(Path(__file__).parents[1] / "training" / "conftest.py"))["draw_shapes"]
    (folder / "annotation").mkdir(parents=True)
    for name, count in (("train", 6), ("val", 2)):
        (folder / name).mkdir()
        draw(folder / name, count)
        (folder / name / "instances.json").rename(folder / "annotation" / f"instances_{name}.json")
