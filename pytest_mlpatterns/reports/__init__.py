"""Results as text. Every function here takes finished results and returns text; the caller writes it somewhere."""
