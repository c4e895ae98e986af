"""Changes in a course of many runs: series and their segments, steps, levels, and the scatter of launches."""
