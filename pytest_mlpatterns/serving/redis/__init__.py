"""Caches and queues in Redis or Valkey."""
