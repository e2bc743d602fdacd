"""Observations to features: image trunk, 1x1 reduction, spatial pooling, temporal stacking."""

from dataclasses import dataclass
from typing import Literal

from ibc.checks import check, check_choice, check_float, check_int


@dataclass(frozen=True)
class EncoderConfig:
    """How an observation becomes features; the image fields are not read for low-dimensional ones.

    trunk: "conv" (one stride-2 convolution per entry of channels) or "resnet18" (GroupNorm).
    reduce_maps: maps after a 1x1 convolution, None to pool the trunk's own maps.
    pooling: "softargmax" (expected x, y of every map), "average" or "max".
    temperature, learn_temperature: of the softargmax.
    crop: side in px of the random crop in training and centre crop at evaluation; None for none.
    stacking: "features" encodes every frame and concatenates, "channels" stacks frames first.
    features: width of an image's feature vector.
    state_width, state_depth: hidden layers of the encoder of low-dimensional observations.
    """

    trunk: Literal["conv", "resnet18"] = "conv"
    channels: tuple[int, ...] = (32, 64, 128)
    reduce_maps: int | None = 32
    pooling: Literal["softargmax", "average", "max"] = "softargmax"
    temperature: float = 1.0
    learn_temperature: bool = False
    crop: int | None = 84
    stacking: Literal["features", "channels"] = "features"
    features: int = 64
    state_width: int = 256
    state_depth: int = 2

    def __post_init__(self) -> None:
        check_choice("encoder.trunk", self.trunk, ("conv", "resnet18"))
        check_choice("encoder.pooling", self.pooling, ("softargmax", "average", "max"))
        check_choice("encoder.stacking", self.stacking, ("features", "channels"))
        check(
            1 <= len(self.channels) <= 5, "encoder.channels must hold 1 to 5 widths", self.channels
        )
        for width in self.channels:
            check_int("encoder.channels", width, 1, 2048)
        if self.reduce_maps is not None:
            check_int("encoder.reduce_maps", self.reduce_maps, 1)
            check(
                self.reduce_maps <= self.trunk_channels,
                f"encoder.reduce_maps must not exceed the trunk's {self.trunk_channels} channels",
                self.reduce_maps,
            )
        if self.crop is not None:
            check_int("encoder.crop", self.crop, 32, 96)
        check_float("encoder.temperature", self.temperature, 0.0, open_low=True)
        check_int("encoder.features", self.features, 1, 4096)
        check_int("encoder.state_width", self.state_width, 1, 8192)
        check_int("encoder.state_depth", self.state_depth, 0, 16)

    @property
    def trunk_channels(self) -> int:
        """Channels of the trunk's last feature map."""
        return 512 if self.trunk == "resnet18" else self.channels[-1]
