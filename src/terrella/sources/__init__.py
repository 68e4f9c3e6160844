"""Where records come from: one reader a kind of file."""
