"""A word-level language model: embedding, LSTM layers, a linear layer over the vocabulary."""

from __future__ import annotations


def make_language_model(torch, vocabulary=1000, width=200, layers=2):
    nn = torch.nn

    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, width)
            self.lstm = nn.LSTM(width, width, layers)
            self.head = nn.Linear(width, vocabulary)

        def forward(self, words, hidden, cell):
            output, (hidden, cell) = self.lstm(self.embedding(words), (hidden, cell))
            return self.head(output).view(-1, vocabulary), hidden, cell

    return LanguageModel()
