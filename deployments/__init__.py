"""Ray Serve: the deployments of the server and the application that ties them together."""
