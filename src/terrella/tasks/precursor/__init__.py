"""Geomagnetic spectrograms before earthquakes: the published method, and the audit it lacked."""
