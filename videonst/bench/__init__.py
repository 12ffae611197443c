"""Measurements that a user can repeat: `videonst bench`."""
