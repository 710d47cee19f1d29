"""Tables, figures and the HTML report, computed from records alone."""
