"""Stub, replaced below."""
