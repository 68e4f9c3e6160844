"""How networks are trained, split and judged; the same for every task."""
