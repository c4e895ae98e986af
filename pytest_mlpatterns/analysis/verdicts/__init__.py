"""From figures and tolerances to verdicts."""
