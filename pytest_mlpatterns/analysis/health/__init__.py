"""Whether a measurement can be trusted: the machine, the load generator, the answers."""
