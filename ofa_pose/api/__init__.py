"""Every command as a function: what a notebook calls and what the shell calls. Importing it is light."""
