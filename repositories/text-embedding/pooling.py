"""The pooling of sentence-transformers' all-MiniLM-L6-v2: the masked mean of the token vectors, normalised."""

import torch
from torch import nn


class MeanPooling(nn.Module):
    """``last_hidden_state`` [batch, sequence, 384] and ``attention_mask`` [batch, sequence] → [batch, 384]."""

    def forward(self, last_hidden_state: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask.unsqueeze(-1).to(last_hidden_state.dtype)
        mean = (last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, p=2.0, dim=1)
