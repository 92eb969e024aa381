"""Rules that turn an answer and its gold answers into a score, and statistics of many scores.

A rule is a pure function of a cleaned response and a `Gold`. It returns a `RuleResult`: what it read, whether that went
well, and a score of 0 to 1 (rule.py). Its name, e.g. `vqa/m4c`, is stored with every score.

To add a rule: write the function in the file of rules/ that is nearest, or in a new one, with its source in the
docstring, and end it with `rule_result`; add its name to the table `RULES` in rules/__init__.py. If it looks at
`Gold.facts`, which rows of one's own lack, the word before its `/` belongs into `NEEDS_FACTS` there, and examples of
the facts into tests/jobs/test_rules.py. That is all that settings, `triptych score` and tests/jobs/test_rules.py go by;
a data set names its rule in jobs/benchmarks. What the rule makes of answers is shown in tests/jobs/test_rules_short.py
or, for options, test_rules_options.py; cases of the original code stand in tests/data/vectors.

response.py cleans a response, applies a rule and returns the stored columns. summary.py adds up scores for reports;
intervals.py and statistics.py say how sure they are. captions/ has metrics of whole sets of captions. pictures/ and
pass_at_k.py are a library that no command reaches.
"""
