"""Settings of a test and of a run: marker > command line > ini > default."""
