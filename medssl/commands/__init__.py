"""What each command does, from files to files; a function's signature and docstring are its command line."""
