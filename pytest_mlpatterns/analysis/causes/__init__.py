"""What a change comes from: functions, parts of a latency, growing memory."""
