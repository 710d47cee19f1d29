"""Helpers of several test folders; `helpers` is on the path of pytest."""
