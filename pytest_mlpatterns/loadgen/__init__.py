"""The load generator: the parent's handle, and the processes that send and record requests."""
