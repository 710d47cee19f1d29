"""Published tables as data, and the matrices behind them."""
