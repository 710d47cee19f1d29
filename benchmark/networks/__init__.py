"""Networks: targets, judges, generators and discriminators."""
