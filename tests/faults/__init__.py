"""The fault suite: real kills and outages in mid-job, after which every index is exactly in step."""
