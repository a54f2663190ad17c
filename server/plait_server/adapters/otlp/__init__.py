"""Sends spans by OTLP, configured by the OTEL_ environment variables."""
