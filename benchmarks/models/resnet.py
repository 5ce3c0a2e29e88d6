"""ResNet-18 in its form for 32×32 images (He et al., 2016): a 3×3 stem without pooling, four stages of two blocks."""

from __future__ import annotations


def make_resnet18(torch, widths=(64, 128, 256, 512), classes=10):
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, entering, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(entering, width, 3, stride=stride, padding=1, bias=False)
            self.norm1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(width)
            self.shortcut = nn.Sequential()
            if stride != 1 or entering != width:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(entering, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))

        def forward(self, x):
            y = F.relu(self.norm1(self.conv1(x)))
            y = self.norm2(self.conv2(y))
            return F.relu(y + self.shortcut(x))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(widths[0])
            blocks, entering = [], widths[0]
            for stage, width in enumerate(widths):
                blocks += [Block(entering, width, 2 if stage else 1), Block(width, width, 1)]
                entering = width
            self.blocks = nn.Sequential(*blocks)
            self.head = nn.Linear(entering, classes)

        def forward(self, x):
            x = self.blocks(F.relu(self.norm(self.conv(x))))
            return self.head(x.mean(dim=(2, 3)))

    return ResNet()
