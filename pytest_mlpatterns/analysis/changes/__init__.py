"""Changes in a course of many runs: series and their segments, steps, drifts, and what a machine can see."""
