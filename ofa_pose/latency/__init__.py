"""How long networks take on a device: pieces of them measured once, whole nets foretold from the table of those."""
