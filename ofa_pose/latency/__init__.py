"""How long networks take on a device: pieces of them measured once, whole nets predicted from the table of those."""
