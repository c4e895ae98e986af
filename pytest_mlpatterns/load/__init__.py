"""Load: what is sent, when, and by whom."""
