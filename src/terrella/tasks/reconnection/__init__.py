"""Regions of magnetotail reconnection in MMS burst data (Waters et al. 2025)."""
