"""Types, columns, protocols and errors; imports nothing else of the package."""
