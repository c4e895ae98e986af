"""Servers and models for the tests: real ones, and one whose every byte is declared."""
