"""Sends spans by OTLP, as the OTEL_ variables say."""
