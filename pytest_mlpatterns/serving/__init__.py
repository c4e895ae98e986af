"""Deployments: processes that serve a model or a service, and the handle to them while they run."""
