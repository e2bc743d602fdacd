"""Image backbones: (B, C, H, W) in [-1, 1] to feature maps."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from ibc.config.encoder import EncoderConfig


class ConvBackbone(nn.Module):
    """One convolution per width, a norm and ReLU after each, and a residual block if asked.

    downsample "stride": stride 2, 5x5 first, then 3x3. "max_pool": 3x3, maps halved after the
    ReLU. "none": 3x3 at full resolution.
    """

    def __init__(self, config: EncoderConfig, inputs: int) -> None:
        super().__init__()
        self.pooled, norm = config.downsample == "max_pool", config.norm
        stride, first = (2, 5) if config.downsample == "stride" else (1, 3)
        kernels = (first, 3, 3, 3, 3)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel, stride, padding=kernel // 2, bias=norm == "none")
            for (a, b), kernel in zip(pairwise((inputs, *config.channels)), kernels, strict=False)
        )
        self.norms = nn.ModuleList(normalisation(norm, width) for width in config.channels)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, width, 1, norm)
            for width in config.channels
            if config.trunk == "residual"
        )

    def forward(self, x: Tensor) -> Tensor:
        """With strides, 84 px wide images and three widths give maps 11 wide."""
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = norm(convolution(x)).relu_()
            if self.pooled:
                x = functional.max_pool2d(x, 2)
            if self.blocks:
                x = self.blocks[i](x)
        return x


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the second fed by the first, and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str = "group") -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
        self.norm1 = normalisation(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        self.norm2 = normalisation(norm, outputs)
        self.shortcut = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=bias), normalisation(norm, outputs)
            )
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        h = self.norm1(self.conv1(x)).relu_()
        h = self.norm2(self.conv2(h))
        out: Tensor = (h + self.shortcut(x)).relu_()
        return out


class ResNet18(nn.Module):
    """ResNet18 without its classifier, every batch norm replaced by GroupNorm of 16 channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, 64, 7, stride=2, padding=3, bias=False)
        self.norm = group_norm(64)
        self.blocks = nn.Sequential()
        for before, width in pairwise((64, 64, 128, 256, 512)):
            self.blocks.append(ResidualBlock(before, width, stride=1 if before == width else 2))
            self.blocks.append(ResidualBlock(width, width, stride=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 512, H / 32, W / 32), rounded up."""
        x = self.norm(self.stem(x)).relu_()
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        out: Tensor = self.blocks(x)
        return out


def build_backbone(config: EncoderConfig, inputs: int) -> ConvBackbone | ResNet18:
    """The configured backbone for images of so many channels; it gives `config.maps` maps."""
    return ResNet18(inputs) if config.trunk == "resnet18" else ConvBackbone(config, inputs)


def normalisation(norm: str, channels: int) -> nn.Module:
    """GroupNorm for "group", nothing for "none"."""
    return group_norm(channels) if norm == "group" else nn.Identity()


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm in groups of 16 channels, or the largest smaller size that divides them."""
    size = next(size for size in range(min(16, channels), 0, -1) if channels % size == 0)
    return nn.GroupNorm(channels // size, channels)
