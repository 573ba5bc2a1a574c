"""Ray actors; the only place in ray_app that imports ray."""
