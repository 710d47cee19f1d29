"""Execute a plan: scheduler, local, processes, Ray."""
