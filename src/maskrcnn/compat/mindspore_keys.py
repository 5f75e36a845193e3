"""What each key of mindspore-lab's RCNN configuration is here: settings of ours, nothing, or not the same."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maskrcnn.compat.mindspore_config import MindSporeConfig
from maskrcnn.errors import UserError


@dataclass(frozen=True)
class Meaning:
    """What a key's value is here. settings: ours that say the same. words: why there are none, or a remark.

    kept: false where the value is not what is done here.
    """

    settings: tuple[str, ...] = ()
    words: str = ""
    kept: bool = True


@dataclass(frozen=True)
class Asked:
    """A configuration, and how it shall be taken.

    data: folder, URL or annotations in place of `data.dataset_dir`; "" for that. model: what to start from;
    "" for random weights. processes: of which each has `batch_size` images. exact: repeat what their code
    does otherwise than its configuration says.
    """

    config: MindSporeConfig
    data: str = ""
    model: str = ""
    processes: int = 1
    exact: bool = False

    def get(self, key: str) -> Any:
        """The value of a dotted key; None where there is none."""
        return self.config.get(key)


Rule = Callable[[Any], Meaning]


def setting(path: str, value: Any) -> str:
    """`training.clip=5`, as --set takes it."""
    return f"{path}={json.dumps(value)}"


def left_out(words: str) -> Meaning:
    """A value that is not what is done here, and why."""
    return Meaning(words=words, kept=False)


def _sets(*paths: str) -> Rule:
    return lambda value: Meaning(tuple(setting(path, value) for path in paths))


def _only(known: Any, instead: str) -> Rule:
    """A value that is always so here; of any other: what is done instead."""
    return lambda value: Meaning(words="always so") if value == known else left_out(instead)


def _ignored(words: str) -> Rule:
    return lambda value: Meaning(words=words)


_TRUNK = re.compile(r"det_(?:resnet(18|34|50|101|152)|resnext(50|101|152)_(\d+)x(\d+)d)")


def _trunk(value: Any) -> Meaning:
    match = _TRUNK.fullmatch(str(value))
    if match is None:
        raise UserError(
            f"backbone.name: {value}: is no trunk that this version knows",
            hint="choose det_resnet18, 34, 50, 101 or 152, or det_resnext50_32x4d and the like",
        )
    found = [setting("model.backbone.depth", int(match[1] or match[2]))]
    if match[3]:
        found += [setting("model.backbone.groups", int(match[3]))]
        found += [setting("model.backbone.group_width", int(match[4]))]
    return Meaning(tuple(found))


def _net(value: Any) -> Meaning:
    if value != "MaskRCNN":
        raise UserError(f"net: {value}: is no Mask R-CNN", hint="use a configuration of config/maskrcnn")
    return Meaning(words="always so")


def _norm(value: Any) -> Meaning:
    known = {"none": "none", "bn": "bn", "None": "none"}
    if str(value) not in known:
        return left_out("the pyramid has no such norm and gets none")
    return Meaning((setting("model.fpn.norm", known[str(value)]),))


def _upsample(value: Any) -> Meaning:
    if value not in ("bilinear", "nearest"):
        return left_out("bilinear is taken")
    return Meaning((setting("model.fpn.upsample", value),))


def _mask_shape(value: Any) -> Meaning:
    return Meaning(words="twice mask_head.resolution, as always")


def _type(value: Any) -> Meaning:
    if value in ("momentum", "sgd"):
        return Meaning((setting("training.optimizer", "sgd"),))
    return left_out("stochastic gradient descent with momentum is taken")


_STAGES = (4, 8, 16, 32)
WORKERS = ("num_parallel_workers", "num_workers")
"""What their code and its FAQ call the threads that prepare images."""

RULES: dict[str, Rule] = {
    "net": _net,
    "lr.warmup_step": lambda value: Meaning(
        (setting("training.warm_up", value),), "at most a tenth of the run"
    ),
    "lr.warmup_ratio": _sets("training.warm_up_from"),
    "lr.decay_rate": _sets("training.drop"),
    "optimizer.type": _type,
    "optimizer.weight_decay": _sets("training.weight_decay"),
    "optimizer.momentum": _sets("training.momentum"),
    "optimizer.nesterov": _only(False, "momentum is taken as it is"),
    "optimizer.filter_bias_and_bn": _only(True, "norms and biases have no decay"),
    "clip_grads": _only(False, "their code reads it and does nothing; training.clip is for that"),
    "data.dataset_name": _ignored("formats are known by their content"),
    "data.names": _ignored("the names of the annotations are taken"),
    "data.detection_require_poly": _ignored("polygons and RLE are both read"),
    "data.is_segment": _only(True, "masks are always learnt"),
    "data.seg_size": _only(28, "masks have twice mask_head.resolution a side"),
    "backbone.name": _trunk,
    "backbone.in_channels": _ignored("follows from the trunk"),
    "backbone.out_channels": _sets("model.fpn.channels"),
    "backbone.frozen_bn": lambda value: Meaning(
        (setting("model.backbone.norm", "frozen_bn" if value else "bn"),)
    ),
    "backbone.fpn.num_outs": _only(5, "the pyramid has five levels"),
    "backbone.fpn.level_index": _only([0, 1, 2, 3], "the pyramid stands on res2 to res5"),
    "backbone.fpn.norm": _norm,
    "backbone.fpn.act": _only("none", "the pyramid has no activations"),
    "backbone.fpn.upsample_mode": _upsample,
    "rpn_head.feat_channel": _ignored("as many as backbone.out_channels"),
    "rpn_head.anchor_generator.aspect_ratios": _sets("model.anchors.ratios"),
    "rpn_head.anchor_generator.anchor_sizes": _sets("model.anchors.sizes"),
    "rpn_head.anchor_generator.strides": _only([4, 8, 16, 32, 64], "the strides of the pyramid are taken"),
    "rpn_head.rpn_label_assignment.rnp_sample_batch": _sets("model.rpn.batch"),
    "rpn_head.rpn_label_assignment.rpn_sample_batch": _sets("model.rpn.batch"),
    "rpn_head.rpn_label_assignment.fg_fraction": _sets("model.rpn.positive_fraction"),
    "rpn_head.rpn_label_assignment.negative_overlap": _sets("model.rpn.background_iou"),
    "rpn_head.rpn_label_assignment.positive_overlap": _sets("model.rpn.foreground_iou"),
    "rpn_head.rpn_label_assignment.use_random": _only(True, "samples are drawn at random"),
    "rpn_head.train_proposal.pre_nms_top_n": _sets("model.rpn.pre_nms_training"),
    "rpn_head.train_proposal.post_nms_top_n": _sets("model.rpn.post_nms_training"),
    "bbox_head.resolution": _sets("model.box_head.pool_side"),
    "bbox_head.bbox_loss": _only("None", "the smooth L1 loss is taken"),
    "bbox_head.add_gt_as_proposals": _only(True, "objects are always among the proposals of training"),
    "bbox_head.head.name": _only("RCNNBBoxTwoFCHead", "a head of two linear layers is taken"),
    "bbox_head.head.in_channel": _ignored("as many as backbone.out_channels"),
    "bbox_head.head.out_channel": _sets("model.box_head.fc_channels"),
    "bbox_head.roi_extractor.featmap_strides": _only([*_STAGES], "the strides of the pyramid are taken"),
    "bbox_head.bbox_assigner.name": _only("BBoxAssigner", "samples are drawn at random"),
    "bbox_head.bbox_assigner.rois_per_batch": _sets("model.box_head.batch"),
    "bbox_head.bbox_assigner.fg_thresh": _sets("model.box_head.foreground_iou"),
    "bbox_head.bbox_assigner.fg_fraction": _sets("model.box_head.positive_fraction"),
    "mask_head.resolution": _sets("model.mask_head.pool_side"),
    "mask_head.mask_shape": _mask_shape,
    "mask_head.head.in_channel": _ignored("as many as backbone.out_channels"),
    "mask_head.head.out_channel": _sets("model.mask_head.channels"),
    "mask_head.head.num_convs": _sets("model.mask_head.convs"),
    "mask_head.roi_extractor.featmap_strides": _only([*_STAGES], "the strides of the pyramid are taken"),
    "infer.conf_threshold": _sets("model.box_head.score_over"),
    "infer.nms_threshold": _sets("model.box_head.nms_iou"),
    "infer.max_box_num": _sets("model.box_head.detections"),
    "infer.predict_box_format": _ignored("each format of --save has its own"),
    "infer.eval_parallel": _ignored("processes always share an evaluation"),
    "infer.with_postprocess": _only(True, "a model always returns final boxes"),
    "seed": _sets("training.seed"),
    "log_interval": _sets("training.log_every"),
    "ms_mode": _ignored("there is one mode"),
    "ms_loss_scaler": _only("dynamic", "float16 always has a dynamic loss scale"),
    "ms_loss_scaler_value": _ignored("float16 always has a dynamic loss scale"),
    "run_profilor": _only(False, "maskrcnn bench measures"),
    **{f"{place}{name}": _sets("training.threads") for place in ("data.", "") for name in WORKERS},
    **dict.fromkeys(
        ("data.test_img_dir", "data.test_anno_path"), _ignored("maskrcnn eval takes any annotations")
    ),
}
"""Of every key that has a meaning by itself, in their configuration files and options."""
