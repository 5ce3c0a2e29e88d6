"""A decoder-only transformer (pre-norm, learned positions, tied output weights), and generation with it."""

from __future__ import annotations


def make_gpt(torch, vocabulary=65, context=256, layers=6, heads=6, width=384, dropout=0.0):
    nn, F = torch.nn, torch.nn.functional

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project_in = nn.Linear(width, 3 * width)
            self.project_out = nn.Linear(width, width)

        def forward(self, x):
            batch, length, _ = x.shape
            q, k, v = self.project_in(x).split(width, dim=2)
            q, k, v = (each.view(batch, length, heads, width // heads).transpose(1, 2) for each in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.project_out(y.transpose(1, 2).contiguous().view(batch, length, width))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(width)
            self.attention = Attention()
            self.norm2 = nn.LayerNorm(width)
            self.expand = nn.Linear(width, 4 * width)
            self.contract = nn.Linear(4 * width, width)
            self.dropout = nn.Dropout(dropout)

        def forward(self, x):
            x = x + self.dropout(self.attention(self.norm1(x)))
            return x + self.dropout(self.contract(F.gelu(self.expand(self.norm2(x)))))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, width)
            self.positions = nn.Embedding(context, width)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)
            self.head.weight = self.tokens.weight

        def forward(self, tokens, targets=None):
            places = torch.arange(tokens.shape[1])
            x = self.tokens(tokens) + self.positions(places)
            for block in self.blocks:
                x = block(x)
            x = self.norm(x)
            if targets is None:
                return self.head(x[:, -1:])
            logits = self.head(x)
            return F.cross_entropy(logits.view(-1, vocabulary), targets.view(-1))

    return GPT()


def generate(torch, model, tokens, count, context):
    """Appends the likeliest next token, one at a time: (batch, length) → (batch, length + count)."""
    with torch.no_grad():
        for _ in range(count):
            logits = model(tokens[:, -context:])
            tokens = torch.cat([tokens, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    return tokens
