"""What runs in the Ray driver and on the nodes: the only modules of the load generator that import Ray."""
