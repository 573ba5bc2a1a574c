"""The console's routes: HTML under ``/console``, for whoever has the admin key."""
