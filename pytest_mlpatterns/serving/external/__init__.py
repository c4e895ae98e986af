"""Services of the user's own: attached to, or started and supervised."""
