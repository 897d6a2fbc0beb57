"""Schedules: loads that run at a time, by a cron expression, or after another load has ended."""
