"""How is a result shown? Cards, and the pages and tables made from results.json files."""
