"""The HTML leaderboard."""
