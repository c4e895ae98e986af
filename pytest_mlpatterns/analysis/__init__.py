"""Pure mathematics: arrays and values in, values out; no I/O, no clock."""
