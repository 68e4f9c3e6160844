"""Relativistic electron precipitation in POES/MetOp passes."""
