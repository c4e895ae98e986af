"""Reports that other programs read: the result file, GitHub, JUnit, gauges, profiles."""
