"""Image classifiers in plain PyTorch, with the names of published state dicts.

What our own networks are compared with where no installed library has them. Written from the
papers and the names, not from anybody's code.
"""

import torch
from torch import nn
from torch.nn import functional as F


def _conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class Residual(nn.Module):
    """A basic or bottleneck block, named as torchvision does."""

    def __init__(self, inputs, outputs, stride, bottleneck):
        super().__init__()
        middle = outputs // 4
        sizes = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        if bottleneck:
            sizes = [(inputs, middle, 1, 1), (middle, middle, 3, stride), (middle, outputs, 1, 1)]
        self.count = len(sizes)
        for i, size in enumerate(sizes, 1):
            self.add_module(f"conv{i}", _conv(*size))
            self.add_module(f"bn{i}", nn.BatchNorm2d(size[1]))
        self.downsample = None
        if stride > 1 or inputs != outputs:
            short = _conv(inputs, outputs, 1, stride)
            self.downsample = nn.Sequential(short, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, depths, widths, *, bottleneck, classes, stem=64, small=False):
        super().__init__()
        self.small = small
        self.conv1 = _conv(3, stem, 3) if small else _conv(3, stem, 7, 2)
        self.bn1 = nn.BatchNorm2d(stem)
        self.stages = len(depths)
        inputs = stem
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for j in range(depth):
                blocks.append(Residual(inputs, width, 2 if i and not j else 1, bottleneck))
                inputs = width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x if self.small else F.max_pool2d(x, 3, 2, 1)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    def __init__(self, depths, widths, *, norm, classes, hidden=4096, grid=7):
        super().__init__()
        layers, inputs = [], 3
        for depth, width in zip(depths, widths, strict=True):
            for _ in range(depth):
                layers.append(nn.Conv2d(inputs, width, 3, padding=1))
                layers += [nn.BatchNorm2d(width)] if norm else []
                layers.append(nn.ReLU())
                inputs = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        dense = [nn.Linear(inputs * grid**2, hidden), nn.Linear(hidden, hidden)]
        last = nn.Linear(hidden, classes)
        drop = nn.Dropout
        self.classifier = nn.Sequential(
            dense[0], nn.ReLU(), drop(), dense[1], nn.ReLU(), drop(), last
        )

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding: as little as needed, the odd pixel at the end."""

    def forward(self, x):
        (size, _), (stride, _) = self.kernel_size, self.stride
        pads = []
        for length in (x.shape[3], x.shape[2]):
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, None, self.stride, groups=self.groups)


def _norm(width):
    return nn.BatchNorm2d(width, eps=1e-3)


class Inverted(nn.Module):
    """An inverted residual block of EfficientNet-Lite."""

    def __init__(self, inputs, outputs, size, stride, expansion):
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = SameConv(inputs, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv(wide, wide, size, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv(wide, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x):
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """(blocks, channels, kernel, stride) a stage; all but the first widen six times."""

    STAGES = (
        (1, 16, 3, 1),
        (2, 24, 3, 2),
        (2, 40, 5, 2),
        (3, 80, 3, 2),
        (3, 112, 5, 1),
        (4, 192, 5, 2),
        (1, 320, 3, 1),
    )

    def __init__(self, classes=1000):
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks, inputs = [], 32
        for i, (depth, width, size, stride) in enumerate(self.STAGES):
            for j in range(depth):
                expansion = 6 if i else 1
                blocks.append(Inverted(inputs, width, size, 1 if j else stride, expansion))
                inputs = width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(inputs, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, classes)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


def shuffle(module, seed=0):
    """Random weights that keep the size of what passes, and random norms, in evaluation mode."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.2)
            nn.init.uniform_(part.bias, -0.2, 0.2)
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.6, 1.8)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
    for part in module.modules():
        if isinstance(part, Residual):  # else a hundred layers make logits of several hundred
            getattr(part, f"bn{part.count}").weight.data.mul_(0.4)
    return module.eval()
