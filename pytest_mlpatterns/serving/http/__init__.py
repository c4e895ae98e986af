"""The HTTP server of our own deployments."""
