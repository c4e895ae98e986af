"""Reports for a terminal: tables, failures, sketches."""
