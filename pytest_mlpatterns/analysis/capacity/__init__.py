"""What a service sustains: searches for NMRT, scaling, overload."""
