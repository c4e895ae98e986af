"""What is sent, and when: schedules, inputs, payloads and requests, as values."""
