"""How is a trained model made small, or made to run elsewhere, and does it still answer the same?"""
