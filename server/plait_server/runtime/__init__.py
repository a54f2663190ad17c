"""The trio shell: makes the core's events durable and carries its commands out."""
