"""How is text cut into tokens? Training of BPE, WordPiece and Unigram tokenizers, and what a token costs."""
