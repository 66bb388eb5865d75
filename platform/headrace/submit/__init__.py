"""A run on a cluster that is somewhere else: handed over, followed, stopped, resumed, listed, all of it over HTTP and the run's storage."""
