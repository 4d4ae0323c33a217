"""How are probabilities turned into text, and texts into predictions?"""
