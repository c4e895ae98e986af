"""The gRPC server of our own deployments, and a functional client of it."""
