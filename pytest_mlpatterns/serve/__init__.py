"""The local engine: a model's processes, their HTTP face, how they get ready and how they end."""
