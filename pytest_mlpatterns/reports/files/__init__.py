"""Reports that other programs read: the result file, GitHub, JUnit, pytest-benchmark."""
