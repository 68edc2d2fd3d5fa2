"""Plain metric functions and their intervals."""
