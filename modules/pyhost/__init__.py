"""What pyhost offers beyond the names of the standard library."""
