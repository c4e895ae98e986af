"""The baseline file: read, look up, update, write."""
