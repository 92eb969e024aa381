"""Score stored answers, compare scored outputs, and hand answers in. Only a judge runs a model.

- `triptych score`: score.py takes answers from a run (run_answers.py), or from another tool's file (predictions.py) and
  joins them with their data set (file_answers.py). judge.py asks a model about answers that no rule could read.
- `triptych compare`: align.py aligns two outputs row by row, paired_scores.py pairs their scores, compare.py tests the
  differences.
- `triptych submit`: submission_entries.py makes an entry of each row, submission_files.py and workbook.py write and
  read files of them, submit.py checks that nothing is missing.

outputs.py reads scored rows, arguments.py has the command line's arguments, console.py what is printed.

To add a submission format, add a `Format` to FORMATS in submission_formats.py, whose id is one of the data set's facts
or its key, and a line to WORDED in tests/jobs/test_submit.py. A new shape is written and read in submission_files.py,
where the type checker asks for it, and submission_entries.py adds what else its entries have. Any object with a name
that answers prompts can be a judge: see `Judge` in judge.py; questions for another kind of rule go into
judge_prompts.py.
"""
