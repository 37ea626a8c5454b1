"""What a stage of a backbone is, to those who freeze it or slow it down."""

import pytest
import torch
from torch import nn

from mien.labels import LabelSet
from mien.models.backbones import build_backbone
from mien.models.network import build_network
from mien.sections import NetworkSection, OptimizerSection
from mien.spec import CropSpec
from mien.training.loop import Freezer
from mien.training.optimizers import parameter_groups

#: How many stages each has.
COUNTS = {
    "mien-pico": 4,
    "mien-small": 4,
    "cnn": 3,
    "fcn": 5,
    "mlp": 0,
    "timm:resnet18": 5,
    "timm:convnext_atto": 5,
    "timm:vit_tiny_patch16_224": 13,
    "timm:mobilenetv2_050": 9,
}


class Epoch:
    """As much of a trainer as Freezer looks at."""

    def __init__(self, number: int) -> None:
        self.current_epoch = number


def a_learner(backbone: str) -> nn.Module:
    learner = nn.Module()
    section = NetworkSection(backbone=backbone, pool="own" if "vit" in backbone else "average")
    learner.network = build_network(section, LabelSet(("x", "y")), CropSpec(width=224, height=224))
    return learner


def frozen(learner: nn.Module, epoch: int = 0, **section: int) -> set[str]:
    """The backbone's parameters that do not learn."""
    Freezer(NetworkSection(**section)).on_train_epoch_start(Epoch(epoch), learner)
    return {name for name, p in learner.network.backbone.named_parameters() if not p.requires_grad}


def rate_of(learner: nn.Module, name: str) -> float:
    groups = parameter_groups(learner, OptimizerSection(lr=1.0, layers=0.5))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    return rates[id(learner.network.backbone.get_parameter(name))]


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_parameter_of_a_backbone_is_in_one_of_its_stages(name, count):
    backbone = build_backbone(name, 3, (224, 224), own_pool="vit" in name)
    told = [id(p) for stage in backbone.stages for p in stage.parameters()]
    assert len(told) == len(set(told))
    assert set(told) == {id(p) for p in backbone.parameters()}
    assert len(backbone.stages) == count
    assert all(any(p.ndim > 1 for p in stage.parameters()) for stage in backbone.stages)


def test_two_frozen_stages_are_two_that_have_parameters():
    assert {name.split(".")[1] for name in frozen(a_learner("mien-pico"), freeze=2)} == {"0", "2"}
    assert {name.split(".")[1] for name in frozen(a_learner("mien-pico"), freeze=3)} == {"0", "2", "4", "6"}


def test_stages_are_released_one_by_one_from_the_end():
    learner = a_learner("mien-pico")
    left = [len(frozen(learner, epoch, freeze=-1, unfreeze=2)) for epoch in (0, 1, 2, 4, 6, 8)]
    assert left == [24, 24, 15, 6, 3, 0], "a convolution with its norm has 3 parameters, a residual block 6"


def test_frozen_altogether_nothing_of_a_transformer_learns():
    learner = a_learner("timm:vit_tiny_patch16_224")
    assert len(frozen(learner, freeze=-1)) == len(list(learner.network.backbone.parameters()))
    assert "model.cls_token" in frozen(learner, freeze=1)
    assert "model.blocks.0.attn.qkv.weight" not in frozen(learner, freeze=1)


def test_frozen_norms_and_dropout_keep_still():
    learner = a_learner("fcn")
    learner.train()
    frozen(learner, freeze=2)
    layers = learner.network.backbone.layers
    second = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)][2]
    assert not any(layer.training for layer in layers[:second])
    assert all(layer.training for layer in layers[second:])
    before = layers[1].running_mean.clone()
    learner.network.backbone(torch.rand(2, learner.network.backbone.layers[0].in_channels, 64, 64))
    assert torch.equal(layers[1].running_mean, before)


def test_rates_fall_from_stage_to_stage_of_timms_models():
    learner = a_learner("timm:convnext_atto")
    names = ["model.stem.0.weight", *(f"model.stages.{i}.blocks.0.mlp.fc1.weight" for i in range(4))]
    assert [rate_of(learner, name) for name in [*names, "model.head.norm.weight"]] == [
        1 / 16,
        1 / 8,
        1 / 4,
        1 / 2,
        1,
        1,
    ]
    learner = a_learner("timm:vit_tiny_patch16_224")
    names = [
        "model.pos_embed",
        "model.patch_embed.proj.weight",
        *(f"model.blocks.{i}.mlp.fc1.bias" for i in (0, 10, 11)),
    ]
    assert [rate_of(learner, name) for name in names] == [0.5**12, 0.5**12, 0.5**11, 0.5, 1]
