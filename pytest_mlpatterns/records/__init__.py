"""Values that travel between the packages: frozen, plain, and without numpy at import."""
