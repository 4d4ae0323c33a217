"""How does a cache take one more token without being copied? It has room behind the last."""

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

SPARE = 64  # tokens, or half as many as there are, whichever is more


class RoomyLayer(DynamicLayer):
    """A layer of a `DynamicCache` that writes what is new behind what it has; DynamicLayer copies all for each token.

    `keys` and `values`, `[rows, heads, length, D]`, are the front of larger tensors. Where somebody puts others in
    their place (the beams that go on, a batch that changes) the next token copies those, once.
    """

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.rooms: dict[str, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of all tokens, after those of `[rows, heads, new, D]`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._append("keys", self.keys, key_states)
        self.values = self._append("values", self.values, value_states)
        return self.keys, self.values

    def _append(self, name: str, kept: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        seen = kept.shape[2] if kept.numel() else 0
        end, room = seen + new.shape[2], self.rooms.get(name)
        in_room = room is not None and kept.data_ptr() == room.data_ptr() and len(kept) == len(room)
        if not in_room or end > room.shape[2]:
            room = new.new_empty((*new.shape[:2], end + max(end // 2, SPARE), new.shape[3]))
            if seen:
                room[:, :, :seen] = kept
            self.rooms[name] = room
        room[:, :, seen:end] = new
        return room[:, :, :end]


def roomy_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model of this config. Layers that forget (windows, states) are as transformers has them."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
