"""Traces, by OpenTelemetry: from an HTTP request to the store, and through the stages of a job."""
