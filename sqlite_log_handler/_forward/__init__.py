"""The way from a log file to another engine, by OTLP."""
