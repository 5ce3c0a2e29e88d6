"""V-Net (Milletari, Navab and Ahmadi, 2016) with batch norm: volumes down and up again, with skip connections.

A stage is one to three 5³ convolutions, each with batch norm and PReLU, around which a residual goes; stages are joined
by 2³ convolutions of stride 2, down and transposed.
"""

from __future__ import annotations


def make_vnet(torch, width=16, depths=(1, 2, 3, 3, 3), classes=2):
    nn = torch.nn

    def convolution(entering, leaving):
        return nn.Sequential(nn.Conv3d(entering, leaving, 5, padding=2), nn.BatchNorm3d(leaving), nn.PReLU(leaving))

    class Stage(nn.Module):
        def __init__(self, channels, depth):
            super().__init__()
            self.layers = nn.Sequential(*[convolution(channels, channels) for _ in range(depth)])

        def forward(self, x, skip=None):
            y = x if skip is None else torch.cat([x, skip], dim=1)
            return self.layers(y) + y

    class Down(nn.Module):
        def __init__(self, entering, depth):
            super().__init__()
            self.shrink = nn.Sequential(
                nn.Conv3d(entering, 2 * entering, 2, stride=2), nn.BatchNorm3d(2 * entering), nn.PReLU(2 * entering))
            self.dropout = nn.Dropout3d()
            self.stage = Stage(2 * entering, depth)

        def forward(self, x):
            return self.stage(self.dropout(self.shrink(x)))

    class Up(nn.Module):
        def __init__(self, entering, leaving, depth):
            super().__init__()
            self.grow = nn.Sequential(
                nn.ConvTranspose3d(entering, leaving // 2, 2, stride=2), nn.BatchNorm3d(leaving // 2),
                nn.PReLU(leaving // 2))
            self.dropout = nn.Dropout3d()
            self.stage = Stage(leaving, depth)

        def forward(self, x, skip):
            return self.stage(self.grow(x), self.dropout(skip))

    class VNet(nn.Module):
        def __init__(self):
            super().__init__()
            channels = [width << level for level in range(len(depths))]
            self.enter = convolution(1, width)
            self.downs = nn.ModuleList([Down(here, depth) for here, depth in zip(channels, depths[1:], strict=False)])
            wider = [2 * here for here in channels[:-1]]
            below = [*wider[1:], channels[-1]]
            self.ups = nn.ModuleList([
                Up(under, here, depth) for under, here, depth in zip(below, wider, depths, strict=False)])
            self.leave = nn.Sequential(
                nn.Conv3d(wider[0], classes, 5, padding=2), nn.BatchNorm3d(classes), nn.PReLU(classes),
                nn.Conv3d(classes, classes, 1))

        def forward(self, x):
            x = self.enter(x) + x
            skips = []
            for down in self.downs:
                skips.append(x)
                x = down(x)
            for up, skip in zip(reversed(self.ups), reversed(skips), strict=True):
                x = up(x, skip)
            return self.leave(x)

    return VNet()
