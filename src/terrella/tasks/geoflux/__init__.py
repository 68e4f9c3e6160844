"""geoflux: the daily >2 MeV electron flux at geostationary orbit, one to three days ahead."""
