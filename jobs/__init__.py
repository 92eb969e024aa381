"""Why a run is made: the jobs, their settings, scores and reports, and the command line."""
