"""Tables, figures and the HTML leaderboard, made from records alone."""
