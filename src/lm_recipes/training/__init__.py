"""How is it trained? transformers' Trainer with the few things pretraining needs on top."""
