"""How an observation becomes features: the settings, and which of them go together."""

from dataclasses import dataclass
from typing import Literal

from ibc.config.checks import check, check_float, check_int, check_options, check_retired

SMALLEST_IMAGE = 96  # px, of an observation that is not cropped


@dataclass(frozen=True)
class EncoderConfig:
    """How an observation becomes features.

    Images:
    trunk: the backbone, "conv" (a convolution per entry of channels), "residual" (each followed by
    a residual block) or "resnet18" (GroupNorm; it does not read channels).
    patch: of a conv or residual backbone, the side in px of the squares whose pixels become the
    channels of one place before the first convolution (space-to-depth); 1 for none. A CPU's matrix
    units are idle on three channels.
    channels: widths of the stages of a conv or residual backbone.
    downsample: how each stage halves the maps: by its "stride", by "max_pool", or "none".
    norm: "group" after every convolution, or "none".
    reduce_maps: maps after a 1x1 convolution, None to pool the backbone's own maps.
    reduce_relu: a ReLU between that convolution and the pooling.
    pooling: "softargmax" (expected x, y of every map), "average" or "max".
    temperature: of the softargmax, not read by other poolings.
    crop: side in px of the random crop in training and centre crop at evaluation; None for none.
    features: width of an image's feature vector.
    pose: read nine points on the block out of the newest image, learned from the demonstrations'
    states beside the policy, and treat them as keypoints (ibc/encoders/pose.py). Older images are
    not seen.

    States and keypoints:
    low_dim: "pushing" gives positions, offsets from the agent and movements, each in units of its
    own (ibc/encoders/state.py); "plain" the numbers of all frames mapped to [-1, 1].
    state_width, state_depth: hidden layers. With state_depth 0 the numbers go to the head as they
    are, and state_width is not read unless frames are fused.

    Both:
    stacking: "features" encodes every frame and concatenates; "channels" stacks images before the
    first convolution; "recurrent" and "attention" encode every frame and fuse the sequence
    (ibc/encoders/temporal.py). One frame is encoded alike by all of them.
    learn_temperature, coordinates: retired; the fields stay for the hashes of configs.
    """

    trunk: Literal["conv", "residual", "resnet18"] = "conv"
    channels: tuple[int, ...] = (32, 64, 128)
    reduce_maps: int | None = 32
    pooling: Literal["softargmax", "average", "max"] = "softargmax"
    temperature: float = 1.0
    learn_temperature: bool = False
    crop: int | None = 84
    stacking: Literal["features", "channels", "recurrent", "attention"] = "features"
    features: int = 64
    state_width: int = 256
    state_depth: int = 1
    downsample: Literal["stride", "max_pool", "none"] = "stride"
    norm: Literal["group", "none"] = "group"
    coordinates: bool = False
    reduce_relu: bool = False
    low_dim: Literal["pushing", "plain"] = "pushing"
    patch: int = 1
    pose: bool = False

    def __post_init__(self) -> None:
        check_options("encoder", self)
        check_retired("encoder", self, learn_temperature=False, coordinates=False)
        widths = self.channels
        check(1 <= len(widths) <= 5, "encoder.channels must hold 1 to 5 widths", widths)
        for width in widths:
            check_int("encoder.channels", width, 1, 2048)
        if self.crop is not None:
            check_int("encoder.crop", self.crop, 32, 96)
        side = self.crop or SMALLEST_IMAGE
        check_int("encoder.patch", self.patch, 1, 16)
        rule = f"encoder.patch must divide the {side} px wide images (encoder.crop)"
        check(side % self.patch == 0, rule, self.patch)
        check_float("encoder.temperature", self.temperature, 0.0, open_low=True)
        check_int("encoder.features", self.features, 1, 4096)
        check_int("encoder.state_width", self.state_width, 1, 8192)
        check_int("encoder.state_depth", self.state_depth, 0, 16)
        if self.reduce_maps is not None:
            check_int("encoder.reduce_maps", self.reduce_maps, 1)
            rule = f"encoder.reduce_maps must not exceed the trunk's {self.maps} channels"
            check(self.reduce_maps <= self.maps, rule, self.reduce_maps)
        else:
            rule = "encoder.reduce_relu needs encoder.reduce_maps (it is the ReLU behind them)"
            check(not self.reduce_relu, rule, self.reduce_maps)
        for name, usual in (("downsample", "stride"), ("norm", "group"), ("patch", 1)):
            value = getattr(self, name)
            rule = f'encoder.{name} needs encoder.trunk "conv" or "residual" (resnet18 has its own)'
            check(self.trunk != "resnet18" or value == usual, rule, value)
        rule = 'encoder.pooling "softargmax" needs maps at least 2 px wide at the trunk\'s end'
        side = self.map_side(side)
        check(self.pooling != "softargmax" or side >= 2, rule, f"{side} px")

    @property
    def maps(self) -> int:
        """Channels of the backbone's last feature map."""
        return 512 if self.trunk == "resnet18" else self.channels[-1]

    def map_side(self, side: int) -> int:
        """Width in px of the backbone's last map for square images of that width."""
        side //= self.patch
        for _ in range(5 if self.trunk == "resnet18" else len(self.channels)):
            if self.downsample == "max_pool":
                side //= 2
            elif self.downsample == "stride":
                side = -(-side // 2)
        return side
