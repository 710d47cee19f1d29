"""Networks of targets and judges, embedders and perceptual networks."""
