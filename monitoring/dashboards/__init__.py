"""Grafana's dashboards, written in Python: ``python -m monitoring.dashboards`` writes them as JSON.

A panel is one call here and some forty lines of JSON; units, thresholds and layout are said once.
"""
