"""Processes and the machine: children with a lifeline, sockets, resource monitor, git."""
