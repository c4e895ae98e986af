"""Which pattern fits: criteria, scores and ranks."""
