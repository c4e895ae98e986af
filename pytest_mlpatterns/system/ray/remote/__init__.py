"""What runs in the Ray driver and on the nodes: the only modules that import Ray."""
