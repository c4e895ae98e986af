"""A Ray cluster as this package uses it: started or attached in a child process, never in pytest."""
