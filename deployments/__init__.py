"""Ray Serve deployments."""
