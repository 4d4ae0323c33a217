"""How good is it? Losses in bits per byte, tasks with their baselines and intervals."""
