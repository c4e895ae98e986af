"""Deployments under load: launches, capacity searches, interleaved runs."""
