"""Files of other programs, read with care: typed fields, GGUF headers."""
