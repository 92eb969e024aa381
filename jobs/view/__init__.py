"""Look at every row of an output in a browser, at this machine only: `triptych view OUTPUT`.

rows.py keeps an index of a few bytes a row and reads the shown rows in place; server.py answers the browser, and fills
rows.html and row.html, which hold no script.
"""
