"""How is text cut into tokens? Training of byte-level BPE and WordPiece, and what a tokenizer costs per word."""
