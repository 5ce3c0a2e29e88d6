"""Small forms of networks that people train, written once for both libraries."""

from __future__ import annotations

from typing import Any


def resnet(library: Any, widths: tuple[int, ...] = (4, 8), blocks: int = 2, classes: int = 5) -> Any:
    """A residual network in its form for 32 x 32 images (He et al., 2016): widths 64 … 512 make it ResNet-18."""
    nn, F = library.nn, library.nn.functional

    class Block(nn.Module):
        def __init__(self, given: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(given, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.shortcut = nn.Sequential()
            if stride != 1 or given != width:
                self.shortcut = nn.Sequential(nn.Conv2d(given, width, 1, stride, bias=False), nn.BatchNorm2d(width))

        def forward(self, x: Any) -> Any:
            out = F.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += self.shortcut(x)
            return F.relu(out)

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(widths[0])
            layers, given = [], widths[0]
            for stage, width in enumerate(widths):
                for block in range(blocks):
                    layers.append(Block(given, width, 2 if stage and not block else 1))
                    given = width
            self.layers = nn.Sequential(*layers)
            self.pool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(given, classes)

        def forward(self, x: Any) -> Any:
            out = self.layers(F.relu(self.bn1(self.conv1(x))))
            return self.linear(library.flatten(self.pool(out), 1))

    return ResNet()


def gpt(library: Any, vocabulary: int = 11, block: int = 8, layers: int = 6, heads: int = 2, width: int = 8,
        dropout: float = 0.1) -> Any:
    """A decoder-only transformer with tied embeddings (Radford et al., 2019), as in minimal public versions."""
    nn, F = library.nn, library.nn.functional

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = nn.Linear(width, 3 * width)
            self.c_proj = nn.Linear(width, width)
            self.drop = nn.Dropout(dropout)

        def forward(self, x: Any) -> Any:
            B, T, C = x.size()
            q, k, v = self.c_attn(x).split(width, dim=2)
            q, k, v = (t.view(B, T, heads, C // heads).transpose(1, 2) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout if self.training else 0, is_causal=True)
            return self.drop(self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C)))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width, bias=False)
            self.attn = Attention()
            self.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout))

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = nn.ModuleDict(dict(
                wte=nn.Embedding(vocabulary, width), wpe=nn.Embedding(block, width), drop=nn.Dropout(dropout),
                h=nn.ModuleList([Block() for _ in range(layers)]), ln_f=nn.LayerNorm(width)))
            self.lm_head = nn.Linear(width, vocabulary, bias=False)
            self.transformer.wte.weight = self.lm_head.weight
            self.apply(self.initialise)

        def initialise(self, module: Any) -> None:
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, mean=0.0, std=0.02)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)

        def forward(self, tokens: Any) -> Any:
            places = library.arange(0, tokens.size(1), dtype=library.long, device=tokens.device)
            x = self.transformer.drop(self.transformer.wte(tokens) + self.transformer.wpe(places))
            for layer in self.transformer.h:
                x = layer(x)
            return self.lm_head(self.transformer.ln_f(x))

    return GPT()


def vnet(library: Any, width: int = 4, depth: int = 2) -> Any:
    """A V-shaped network for volumes (Milletari et al., 2016): residual stages down and up, joined across."""
    nn = library.nn

    def stage(channels: int, convolutions: int) -> Any:
        layers = []
        for _ in range(convolutions):
            layers += [nn.Conv3d(channels, channels, 3, padding=1), nn.BatchNorm3d(channels), nn.PReLU(channels)]
        return nn.Sequential(*layers)

    class VNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.BatchNorm3d(width), nn.ELU(inplace=True))
            sizes = [width * 2 ** level for level in range(depth + 1)]
            self.down = nn.ModuleList([nn.Conv3d(a, b, 2, 2) for a, b in zip(sizes, sizes[1:], strict=False)])
            self.stages = nn.ModuleList([stage(size, 1) for size in sizes[1:]])
            self.drops = nn.ModuleList([nn.Dropout3d(0.2) for _ in sizes[1:]])
            self.up = nn.ModuleList([nn.ConvTranspose3d(b, a, 2, 2) for a, b in zip(sizes, sizes[1:], strict=False)])
            self.joins = nn.ModuleList([nn.Conv3d(2 * size, size, 3, padding=1) for size in sizes[:-1]])
            self.last = nn.Conv3d(width, 2, 1)

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            across = []
            for down, stage, drop in zip(self.down, self.stages, self.drops, strict=True):
                across.append(x)
                x = down(x)
                x = drop(stage(x) + x)
            for up, join, other in reversed(list(zip(self.up, self.joins, across, strict=True))):
                x = library.relu(join(library.cat([up(x), other], 1)))
            return self.last(x)

    return VNet()
