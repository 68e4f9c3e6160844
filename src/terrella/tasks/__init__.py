"""One folder a task; ``registry`` finds them."""
