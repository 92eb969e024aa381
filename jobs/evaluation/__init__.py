"""What is done with scored answers once no model runs: scored again, compared, judged, handed in."""
