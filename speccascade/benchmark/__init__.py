"""How fast a pair decodes, and how much of what its acceptance and step costs allow is reached."""
