"""The commands, a module each or a module per family of thin ones; imported when called."""
