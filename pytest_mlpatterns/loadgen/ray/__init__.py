"""Load generators on the nodes of a Ray cluster."""
