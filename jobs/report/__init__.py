"""Write the report of a run's output: report.json, report.md and report.html with the same numbers.

writer.py holds the order: results.py reads the output back, its parts one after the other (part_files.py), and keeps
counts (counts.py), answers that could not be read (unread.py) and rows for the gallery (candidates.py). numbers.py
makes report.json of them, outcome.py sets a plan against it, caveats.py says what to know before quoting it, gallery.py
fetches images, and page.py fills the templates beside it, with numbers written as formatting.py says. job.py is what a
job must bring to be reported on.

To add a section, count what it needs of the rows in counts.py, add its numbers in numbers.py, a template that page.html
includes, and the same in report.md; tests/jobs/test_report.py shows it. A number that a template names and that is not
there is an error of every report. To add a caveat, add a sentence and its condition in caveats.py.
"""
