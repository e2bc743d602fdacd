"""Image trunks: (B, C, H, W) in [-1, 1] to feature maps."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


class ConvTrunk(nn.Module):
    """One stride-2 convolution per width (5x5 first, then 3x3), GroupNorm and ReLU after each."""

    def __init__(self, inputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        widths = (inputs, *channels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel, stride=2, padding=kernel // 2, bias=False)
            for a, b, kernel in zip(widths[:-1], widths[1:], (5, 3, 3, 3, 3), strict=False)
        )
        self.norms = nn.ModuleList(group_norm(width) for width in channels)

    def forward(self, x: Tensor) -> Tensor:
        """84 px wide images and three widths give maps 11 wide."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x)).relu_()
        return x


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the second fed by the first, and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = group_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = group_norm(outputs)
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), group_norm(outputs))
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
        widths = (64, 64, 128, 256, 512)
        self.blocks = nn.Sequential()
        for stage, (inputs_, outputs) in enumerate(pairwise(widths)):
            self.blocks.append(ResidualBlock(inputs_, outputs, stride=1 if stage == 0 else 2))
            self.blocks.append(ResidualBlock(outputs, outputs, stride=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 512, H / 32, W / 32), rounded up."""
        x = self.norm(self.stem(x)).relu_()
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        out: Tensor = self.blocks(x)
        return out


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm in groups of 16 channels, or the largest smaller size that divides them."""
    size = next(size for size in range(min(16, channels), 0, -1) if channels % size == 0)
    return nn.GroupNorm(channels // size, channels)
