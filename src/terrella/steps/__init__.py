"""Pure functions that two tasks or more use."""
