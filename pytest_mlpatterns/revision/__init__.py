"""The same test at another git revision."""
